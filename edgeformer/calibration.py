"""Calibration: real inputs, preprocessed, from which static quantization takes the ranges of activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from edgeformer.interfaces import Interface
from edgeformer.programs import Program
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.preprocess.image_spec import ImagePreprocessing
from edgeformer_runtime.vectors import Case

MAX_SAMPLES = 128
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


def calibrated(programs: tuple[Program, ...], interface: Interface, folder: Path) -> tuple[Program, ...]:
    """The programs with calibration inputs from a folder of images, subfolders included.

    Of more than `MAX_SAMPLES` images that many are taken, spread evenly over the sorted names.

    Raises:
        InputError: the folder holds no images, one of them cannot be read, or the model takes no images.
    """
    spec = interface.preprocessing
    if not isinstance(spec, ImagePreprocessing):
        raise InputError("calibration takes a folder of images, and this model takes no images: use dynamic-int8")
    encode = ImageEncoder(spec)
    inputs = tuple((torch.from_numpy(encode(path)),) for path in _spread(folder))
    return tuple(replace(program, calibration=inputs) for program in programs)


def or_samples(programs: tuple[Program, ...], interface: Interface) -> tuple[Program, ...]:
    """The programs, where they have no calibration inputs and take images with the interface's samples as such.

    Enough to round weights by, though real images are better: TinyViT-5M's lowest cosine on photographs goes from .994
    to .997, with 16 images that are no photographs to .999. Too little to take ranges of activations from.
    """
    spec = interface.preprocessing
    if programs[0].calibration or not isinstance(spec, ImagePreprocessing):
        return programs
    encode = ImageEncoder(spec)
    inputs = tuple((torch.from_numpy(encode(interface.assets[each["image"]])),) for each in interface.samples)
    return tuple(replace(program, calibration=inputs) for program in programs)


def or_recorded(programs: tuple[Program, ...], cases: Sequence[Case]) -> tuple[Program, ...]:
    """The programs, where they have no calibration inputs with those of the recorded cases as such.

    Enough to see which activations leave float16's range. Of speech only a part of an input is recorded: none then.
    """
    if programs[0].calibration or any("audio" in case.raw for case in cases):
        return programs
    return tuple(
        replace(
            program,
            calibration=tuple(
                tuple(torch.from_numpy(case.inputs[spec.name]) for spec in program.inputs)
                for case in cases
                if case.program == program.name
            ),
        )
        for program in programs
    )


def _spread(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InputError(f"no calibration images: {folder} is no folder")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"no calibration images in {folder}: expected files ending in {', '.join(sorted(SUFFIXES))}")
    count = min(len(paths), MAX_SAMPLES)
    return (paths[index * len(paths) // count] for index in range(count))
