"""The zoo's image classifier: small, in timm's format, as good as its card says, and as good at int8."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.evaluate.evaluate import answers_of
from edgeformer.zoo import PICTURES, ZOO
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.preprocess.image import ImageEncoder
from tools.zoo.cifar10_data import CLASSES, load_cifar10
from tools.zoo.train_cifar10 import evaluate

NAME = "cifar10-tinyvit"
FOUR_MB = 4_000_000
CARD = re.compile(r"\| test, (\d+) images \| ([\d.]+)% \|")
POINT = 0.01
CALIBRATION_IMAGES = 100


@pytest.fixture(scope="module")
def data(assets: Path) -> Path:
    return assets / "cifar10" / "cifar10_subset.zip"


def stated_accuracy() -> tuple[int, float]:
    """The card's number of test images and share of right answers."""
    found = CARD.search((ZOO[NAME].folder / "README.md").read_text())
    assert found is not None
    return int(found.group(1)), float(found.group(2)) / 100


def test_it_is_small_and_described() -> None:
    folder = ZOO[NAME].folder
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= FOUR_MB
    card = (folder / "README.md").read_text()
    assert "Krizhevsky" in card
    assert "not part of this repository" in card
    assert stated_accuracy()[1] >= 0.7


def test_it_opens_by_name() -> None:
    checkpoint = open_checkpoint(NAME)
    assert (checkpoint.source.id, checkpoint.task, checkpoint.labels) == (
        f"zoo:{NAME}",
        "image-classification",
        CLASSES,
    )
    assert checkpoint.license == "apache-2.0"
    _, keys = load_module(checkpoint, KERNELS["dense"])
    assert keys.unused == ()


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_the_demos_pictures_are_small_and_recognised(path: Path) -> None:
    assert path.stat().st_size < 10_000
    checkpoint = open_checkpoint(NAME)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    pixels = torch.from_numpy(ImageEncoder(checkpoint.config.preprocessing)(path))
    with torch.no_grad():
        (logits,) = module(pixels)
    assert checkpoint.labels[int(logits.argmax())] == path.stem


@pytest.mark.slow
def test_it_is_as_accurate_as_its_card_says(data: Path) -> None:
    test = load_cifar10(data, "test")
    count, stated = stated_accuracy()
    torch.set_num_threads(1)
    assert len(test.labels) == count
    assert evaluate(NAME, test) == pytest.approx(stated, abs=1e-3)


@pytest.mark.slow
@pytest.mark.litert
def test_int8_loses_less_than_a_point(data: Path, tmp_path: Path) -> None:
    images = tmp_path / "calibration"
    images.mkdir()
    with zipfile.ZipFile(data) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("train") and name.endswith(".jpg"))
        for name in names[:: len(names) // CALIBRATION_IMAGES]:
            (images / name.replace("/", "-")).write_bytes(archive.read(name))
    rows = convert(
        ConvertOptions(NAME, tmp_path / "dist", precisions=("dynamic-int8", "static-int8"), calibration=images)
    )
    _, of_source = stated_accuracy()
    for row in rows:
        assert row.ok, row.problems
        with Bundle.open(row.path) as bundle:
            found = answers_of(bundle, f"{data}:test")
        assert len(found.given) == 2000
        assert found.value >= of_source - POINT, row.precision
