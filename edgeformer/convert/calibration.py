"""Calibration: real inputs, preprocessed, by which weights are rounded and static quantization takes its ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from edgeformer.bounded_files import MAX_TABLE_BYTES, read_text
from edgeformer.data.labelled import TEXT_COLUMNS, locate, read_pairs, spread
from edgeformer.models.program import MIN_MAX, Program
from edgeformer.tasks.interface import Interface
from edgeformer_runtime.bundle.manifest import ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.specs import ImagePreprocessing
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.path_field import StrPath
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.preprocess.text import TextEncoder

MAX_SAMPLES = 128
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif"})


def calibrated(
    programs: tuple[Program, ...], interface: Interface, data: StrPath, method: str = MIN_MAX
) -> tuple[Program, ...]:
    """The programs with calibration inputs from a folder of images, subfolders included, or from texts.

    Of more than `MAX_SAMPLES` that many are taken, spread evenly over the sorted names, or over the table.

    Args:
        programs: of the model.
        interface: how its inputs are made.
        data: a folder of images; or a table of texts as `eval` takes it (labels are not looked at), or a .txt with a
            text on each line.
        method: one of `edgeformer.models.program.METHODS`.

    Raises:
        InputError: there are no inputs, one of them cannot be read, or the model takes another kind.
    """
    data = Path(data)
    programs = tuple(replace(program, calibration_method=method) for program in programs)
    spec = interface.preprocessing
    if isinstance(spec, ImagePreprocessing):
        encode = ImageEncoder(spec)
        inputs = tuple((torch.from_numpy(encode(path)),) for path in _spread(data))
        return tuple(replace(program, calibration=inputs) for program in programs)
    if isinstance(spec, TextPreprocessing):
        return _with_texts(programs, interface, spec, spread(_texts(data), MAX_SAMPLES))
    raise InputError("calibration takes images or texts, and this model takes sound: leave --calibration out")


def _with_texts(
    programs: tuple[Program, ...], interface: Interface, spec: TextPreprocessing, texts: Sequence[str]
) -> tuple[Program, ...]:
    """Each text goes to the smallest bucket that it fits; a bucket that none fits gets all, cut or filled up."""
    if spec.tokenizer is None:
        raise InputError("calibration takes texts, and this model has no tokenizer: leave --calibration out")
    tokenizer = interface.assets[spec.tokenizer].decode()
    specs = {program.name: ProgramSpec(program.name, "", "", program.inputs, program.outputs) for program in programs}
    encoder = TextEncoder(spec, tokenizer, list(specs.values()))
    found: dict[str, list[Mapping[str, NDArray[Any]]]] = {name: [] for name in specs}
    for text in texts:
        encoded = encoder.encode(text)
        found[encoded.program].append(encoded.inputs)
    for name in specs:
        if not found[name]:
            alone = TextEncoder(spec, tokenizer, [specs[name]])
            found[name] = [alone.encode(text).inputs for text in texts]
    return tuple(
        replace(
            program,
            calibration=tuple(
                tuple(torch.from_numpy(inputs[each.name]) for each in program.inputs) for inputs in found[program.name]
            ),
        )
        for program in programs
    )


def _texts(data: Path) -> Sequence[str]:
    if data.suffix.lower() == ".txt" and data.is_file():
        lines = [line.strip() for line in read_text(data, MAX_TABLE_BYTES, str(data)).splitlines()]
        found = [line for line in lines if line]
    else:
        path, key = locate(str(data))
        if path.is_dir():
            raise InputError(f"no calibration texts: {data} is a folder; expected a .csv, .tsv, .json, .jsonl or .txt")
        found = [row.input for row in read_pairs(path, key, TEXT_COLUMNS)]
    if not found:
        raise InputError(f"no calibration texts in {data}: expected a text in each row")
    return found


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
