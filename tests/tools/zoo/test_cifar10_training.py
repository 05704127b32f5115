"""The training run of the zoo's image classifier, on a data set of a few flat images, and what ships of it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.compress.augment import Augmentation, transform
from edgeformer.zoo import ZOO
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from tools.zoo import train_cifar10
from tools.zoo.cifar10_data import CLASSES, load_cifar10
from tools.zoo.train_cifar10 import mix_pairs

SHIPPED = ZOO["cifar10-tinyvit"].folder


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images a class, each class of a gray of its own with noise."""
    path = tmp_path_factory.mktemp("data") / "flat.zip"
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for label, name in enumerate(CLASSES):
            for split, count in (("train", 20), ("test", 2)):
                for number in range(count):
                    pixels = rng.integers(label * 24, label * 24 + 16, (32, 32, 3), dtype=np.uint8)
                    archive.writestr(f"{split}/{name}/{number:04}.png", png(pixels))
    return path


def test_data_is_read_in_the_order_of_the_classes(data: Path) -> None:
    images = load_cifar10(data, "test")
    assert images.images.shape == (20, 3, 32, 32)
    assert images.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert int(images.images[6].float().mean() // 24) == 3
    kept, held = load_cifar10(data, "train").split(0.1)
    assert (len(kept.labels), held.labels.tolist()) == (180, images.labels.tolist())


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_cifar10(tmp_path / "none.zip", "train")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(InputError, match="not a zip of images"):
        load_cifar10(tmp_path / "text.zip", "train")
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive:
        for name in CLASSES:
            archive.writestr(f"train/{name}/0.png", png(np.zeros((33, 32, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match="32 by 32"):
        load_cifar10(tmp_path / "large.zip", "train")
    with zipfile.ZipFile(tmp_path / "few.zip", "w") as archive:
        archive.writestr("train/cat/0.png", png(np.zeros((32, 32, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match="for each of airplane"):
        load_cifar10(tmp_path / "few.zip", "train")


def test_augmentation_without_limits_only_flips_enlarges_and_blanks() -> None:
    still = Augmentation(shift=0.0, zoom=1.0, rotation_degrees=0.0, jitter=0.0, cutout=0.0)
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = transform(images, 16, still, torch.Generator().manual_seed(1))
    plain = torch.nn.functional.interpolate(images, size=16, mode="bilinear", align_corners=False)
    flipped = [torch.allclose(f, p.flip(2), atol=1e-5) for f, p in zip(found, plain, strict=True)]
    same = [torch.allclose(f, p, atol=1e-5) for f, p in zip(found, plain, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert any(flipped)
    assert any(same)


def test_augmentation_is_random_and_repeatable() -> None:
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        transform(images, 64, Augmentation(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    assert first.shape == (16, 3, 64, 64)
    assert 0 <= first.min() <= first.max() <= 1


def test_mixed_targets_say_how_much_of_each_image_there_is() -> None:
    images = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 16)
    for seed in range(20):
        mixed, targets = mix_pairs(images, torch.eye(4), torch.Generator().manual_seed(seed))
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets @ torch.arange(4.0))
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))


@pytest.mark.slow
def test_a_short_run_writes_a_checkpoint(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    folders = [tmp_path / "first", tmp_path / "second"]
    try:
        for folder in folders:
            assert train_cifar10.main(["--data", str(data), "--out", str(folder), "--epochs", "1"]) == 0
        assert train_cifar10.main(["--data", str(data), "--evaluate", str(folders[0])]) == 0
        assert train_cifar10.main(["--data", str(data), "--out", str(folders[0])]) == 2
        assert train_cifar10.main(["--data", str(data)]) == 2
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr()
    assert "test accuracy 0." in said.out
    assert [line for line in said.err.splitlines() if line.startswith("error: ")] == [
        f"error: {folders[0]} exists: name a new folder, or remove it first",
        "error: expected --out to train or --evaluate to measure, found neither",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert sorted(path.name for path in folders[0].iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert open_checkpoint(str(folders[0])).labels == CLASSES


def test_training_pixels_are_the_runtimes(data: Path) -> None:
    spec = train_cifar10.FAMILY.parse_config(train_cifar10.CONFIG).preprocessing
    images = load_cifar10(data, "test").images[:3]

    class Pixels(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
            return (pixels,)

    found = train_cifar10.predict(Pixels(), images, spec)
    expected = np.concatenate([ImageEncoder(spec)(image.permute(1, 2, 0).numpy()) for image in images])
    # The runtime's resized image has 8 bits.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1.01 / 255 / min(spec.std))
