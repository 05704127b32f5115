"""Image pipelines: answers to every kind of input, batches, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_image_bundle import LABELS, SPEC, WEIGHT, TinyImageEngine

from edgeformer_runtime import load
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.pipelines.results import ClassificationResult, softmax
from edgeformer_runtime.pipelines.vision import ImageClassifier


@pytest.fixture
def pipeline(tiny_image: Path) -> ImageClassifier:
    loaded = load(tiny_image, engine=TinyImageEngine())
    assert isinstance(loaded, ImageClassifier)
    return loaded


def test_a_flat_colour_has_a_known_answer(pipeline: ImageClassifier) -> None:
    result = pipeline(np.full((50, 30, 3), (255, 51, 0), dtype=np.uint8))
    assert isinstance(result, ClassificationResult)
    pixel = (np.array([1.0, 0.2, 0.0]) - SPEC.mean) / SPEC.std
    expected = dict(zip(LABELS, softmax(pixel @ WEIGHT.astype(np.float64)), strict=True))
    assert dict(zip(result.labels, result.scores, strict=True)) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert (result.label, result.truncated) == ("red", False)
    assert result.top(1).labels == ("red",)
    assert result.statistics is not None and result.statistics.preprocess_ms > 0


def test_path_bytes_image_and_array_are_the_same_input(pipeline: ImageClassifier, tiny_image: Path) -> None:
    path = tiny_image / "vectors" / "noise.png"
    opened = Image.open(path)
    batch = pipeline([path, str(path), path.read_bytes(), opened, np.asarray(opened)])
    assert len({result.scores for result in batch}) == 1
    recorded = json.loads((tiny_image / "vectors" / "cases.json").read_text())["cases"][0]["expected"]
    assert batch[0].to_json() == recorded
    assert pipeline([]) == []


def test_all_orientations_are_one_answer(pipeline: ImageClassifier, assets: Path) -> None:
    results = pipeline([str(assets / "images" / "exif" / f"landscape_{value}.jpg") for value in range(1, 9)])
    assert len({result.label for result in results}) == 1
    for result in results:
        np.testing.assert_allclose(result.scores, results[0].scores, atol=0.01)  # each was compressed anew


def test_every_edge_image_has_an_answer(pipeline: ImageClassifier, assets: Path) -> None:
    paths = sorted((assets / "images" / "edge").iterdir())
    assert len(pipeline(paths)) == len(paths) == 9


def test_what_is_no_image(pipeline: ImageClassifier, tiny_image: Path) -> None:
    for raw, problem in (
        (42, "found int"),
        ("nowhere.jpg", "cannot read the image 'nowhere.jpg'"),
        (tiny_image / "manifest.json", "not an image"),
        (b"", "empty"),
        ((1, 2), "found tuple"),
    ):
        with pytest.raises(InputError, match=problem):
            pipeline(raw)
    with pytest.raises(InputError, match="input 1 of 2: "):
        pipeline([tiny_image / "vectors" / "noise.png", b"no image"])


def test_stored_inputs_are_files_of_the_bundle(pipeline: ImageClassifier) -> None:
    with pytest.raises(BundleError, match=r"no file 'vectors/other\.png'"):
        pipeline.record({"image": "vectors/other.png"})
