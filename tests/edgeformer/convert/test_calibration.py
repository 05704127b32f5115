"""Calibration inputs: a folder's images, or, to round weights by, the samples of the vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgeformer.convert.calibration import calibrated, or_samples
from edgeformer.models.family import Program
from edgeformer.tasks import image, text
from edgeformer.tasks.task import TaskSpec
from edgeformer.tasks.text import MAX_CALIBRATION_SAMPLES
from edgeformer_runtime.bundle.manifest import Classification, TensorSpec, TextPreprocessing
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.tasks.vision import ImagePreprocessing

SPEC = ImagePreprocessing(
    height=8,
    width=8,
    resize_short_side=8,
    interpolation="bicubic",
    crop="center",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
PROGRAM = Program("image", nn.Identity(), (TensorSpec("pixels", "float32", (1, 3, 8, 8)),), ())


@pytest.fixture
def spec() -> TaskSpec:
    assets = {f"{index}.png": content for index, content in enumerate(image.images())}
    samples = tuple({"image": name} for name in assets)
    return TaskSpec(image.CLASSIFICATION, SPEC, Classification(("a", "b"), "softmax"), assets, samples)


def save(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    return folder


def test_images_of_subfolders_are_preprocessed(spec: TaskSpec, tmp_path: Path) -> None:
    (program,) = calibrated((PROGRAM,), spec, save(tmp_path / "few", 3))
    found = [float(pixels.mean()) for (pixels,) in program.calibration]
    np.testing.assert_allclose(found, [(level / 255 - 0.5) / 0.5 for level in (0, 2, 1)], atol=1e-6)


def test_of_many_images_some_are_taken_from_all_over(spec: TaskSpec, tmp_path: Path) -> None:
    (program,) = calibrated((PROGRAM,), spec, save(tmp_path / "many", 2 * MAX_CALIBRATION_SAMPLES))
    assert len(program.calibration) == MAX_CALIBRATION_SAMPLES
    # The even ones are in the first folder, the odd ones in the second; every other one is taken of each.
    levels = [round(float(pixels.mean() * 0.5 + 0.5) * 255) for (pixels,) in program.calibration]
    assert levels == [*range(0, 256, 4), *range(1, 256, 4)]


def test_without_a_folder_the_samples_are_there_to_round_by(spec: TaskSpec) -> None:
    (program,) = or_samples((PROGRAM,), spec)
    assert len(program.calibration) == len(image.IMAGE_SIZES)
    expected = ImageEncoder(SPEC)(next(image.images()))
    np.testing.assert_array_equal(program.calibration[0][0].numpy(), expected)


def test_real_images_and_texts_stay_as_they_are(spec: TaskSpec) -> None:
    given = replace(PROGRAM, calibration=((torch.zeros(1, 3, 8, 8),),))
    assert or_samples((given,), spec) == (given,)
    of_texts = replace(spec, task=text.CLASSIFICATION, preprocessing=TextPreprocessing(None, 0, 100))
    assert or_samples((PROGRAM,), of_texts) == (PROGRAM,)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_images_is_refused(name: str, spec: TaskSpec, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no calibration images"):
        calibrated((PROGRAM,), spec, tmp_path / name)
