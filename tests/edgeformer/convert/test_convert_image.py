"""`convert` from timm's TinyViT to bundles that answer photographs as timm does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import open_engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundles(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    source = assets / "golden" / "tiny_vit_5m_224.safetensors"
    rows = convert(ConvertOptions(str(source), tmp_path_factory.mktemp("vision"), targets=("litert", "onnx")))
    assert all(row.ok for row in rows)
    return {row.target: row.path for row in rows}


@pytest.mark.parametrize("target", ["litert", "onnx"])
def test_logits_are_timms(target: str, bundles: dict[str, Path], assets: Path) -> None:
    golden = load_file(assets / "golden" / "tiny_vit_5m_224.io.safetensors")
    with Bundle.open(bundles[target]) as bundle:
        engine = open_engine(bundle)
        for pixels, logits in zip(golden["input"].astype(np.float32), golden["logits"], strict=True):
            found = engine.run("image", {"pixels": pixels[None]})["logits"][0]
            np.testing.assert_allclose(found, logits, atol=1e-3)
        engine.close()


def test_all_orientations_of_a_photograph_give_one_answer(bundles: dict[str, Path], assets: Path) -> None:
    with load(bundles["litert"]) as pipeline:
        answers = [pipeline.run(assets / "images" / "exif" / f"landscape_{number}.jpg") for number in range(1, 9)]
    assert len({answer.label for answer in answers}) == 1
    # Each is a JPEG of its own, whose losses differ.
    assert np.ptp([answer.score for answer in answers]) < 0.03


def test_every_odd_image_gets_an_answer(bundles: dict[str, Path], assets: Path) -> None:
    with load(bundles["litert"]) as pipeline:
        for path in sorted((assets / "images" / "edge").iterdir()):
            assert len(pipeline.run(path).labels) == 1000, path.name
