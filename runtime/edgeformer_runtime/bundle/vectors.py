"""Recorded vectors: raw input, preprocessed tensors, outputs of the reference and its answer, case by case."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import (
    CASES_FILE,
    MAX_CASES_BYTES,
    TENSORS_FILE,
    Manifest,
)
from edgeformer_runtime.bundle.specs import ProgramSpec, TensorSpec
from edgeformer_runtime.bundle.strict_json import MAX_RECORDED_KEYS, shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.task import TASKS


@dataclass(frozen=True)
class Tolerances:
    """How far a bundle may be from the reference.

    Attributes:
        output: of a program's output, as a fraction of the reference output's largest absolute value.
        score: of a probability, or of a component of a normalised embedding, absolute.
    """

    output: float
    score: float

    def __post_init__(self) -> None:
        for name, value in (("output", self.output), ("score", self.score)):
            if not 0 <= value <= 1:
                raise BundleError(f"tolerances.{name}: expected 0 to 1, found {value}")


@dataclass(frozen=True)
class Case:
    """One input on its recorded way through the reference.

    Attributes:
        program: the name of the program that runs it.
        raw: the raw input as it is stored, in one of the task's `stored_forms`.
        expected: the answer's JSON as it is stored; {} where the answer is the program's output itself.
        inputs: the program's inputs by name, preprocessed from `raw`; of some tasks a sample of each.
        outputs: the reference's outputs by name; of some tasks a sample of each.
    """

    program: str
    raw: dict[str, Any]
    expected: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def write_vectors(folder: Path, cases: Sequence[Case], tolerances: Tolerances, manifest: Manifest) -> None:
    """Write both files of vectors into a bundle's folder; equal cases give equal bytes.

    Args:
        folder: the bundle's.
        cases: what was recorded.
        tolerances: how far the bundle may be from it.
        manifest: the bundle's, whose task says how inputs are stored.

    Raises:
        BundleError: a case holds NaN or infinity, or input and output of one name.
    """
    takes, spec = TASKS[manifest.task].takes, manifest.preprocessing
    entries = []
    tensors: dict[str, Tensor] = {}
    for index, case in enumerate(cases):
        entries.append({"program": case.program, "input": case.raw, "expected": case.expected})
        for name, tensor in (*case.inputs.items(), *case.outputs.items()):
            key = f"{index}/{name}"
            if key in tensors:
                raise BundleError(f"case {index}: an input and an output are both named {name!r}")
            if not np.isfinite(tensor).all():
                raise BundleError(f"case {index}: the reference's {name!r} holds NaN or infinity")
            tensors[key] = np.ascontiguousarray(tensor)
        keys = [f"{index}/{name}" for name in case.inputs]
        tensors |= {key: takes.to_stored(spec, tensors[key]) for key in keys}
    document = {"cases": entries, "tolerances": {"output": tolerances.output, "score": tolerances.score}}
    strict_json.check(document, "cases.schema.json", CASES_FILE)
    (folder / CASES_FILE).parent.mkdir(exist_ok=True)
    (folder / CASES_FILE).write_text(strict_json.dumps(document), encoding="utf-8", newline="\n")
    from safetensors.numpy import save  # reading goes without it

    (folder / TENSORS_FILE).write_bytes(save(dict(sorted(tensors.items()))))


def read_vectors(bundle: Bundle) -> tuple[tuple[Case, ...], Tolerances]:
    """The cases of a bundle, each with exactly the tensors that its program declares; read once while it is open.

    Raises:
        BundleError: there are none, they do not follow BUNDLE.md, or a program has no case.
    """
    if CASES_FILE not in bundle.parsed:
        bundle.parsed[CASES_FILE] = _read(bundle)
    found: tuple[tuple[Case, ...], Tolerances] = bundle.parsed[CASES_FILE]
    return found


def _read(bundle: Bundle) -> tuple[tuple[Case, ...], Tolerances]:
    manifest, task = bundle.manifest, TASKS[bundle.manifest.task]
    if CASES_FILE not in manifest.files:
        raise BundleError(f"the bundle {manifest.name} has no recorded vectors: convert it again to verify it")
    document = strict_json.load_file(bundle.path(CASES_FILE), CASES_FILE, MAX_CASES_BYTES, MAX_RECORDED_KEYS)
    strict_json.check(document, "cases.schema.json", CASES_FILE)
    tensors = TensorFile(bundle.path(TENSORS_FILE), TENSORS_FILE)
    programs = {program.name: program for program in manifest.programs}
    cases = []
    for index, entry in enumerate(document["cases"]):
        where = f"{CASES_FILE}: cases[{index}]"
        program = programs.get(entry["program"])
        if program is None:
            raise BundleError(f"{where}: unknown program {entry['program']!r}: expected one of {', '.join(programs)}")
        _check_entry(entry, manifest, where)
        input_specs, output_specs = task.gives.case_tensors(manifest, program, entry["expected"])
        stored = _take(
            tensors,
            index,
            [replace(spec, dtype=task.takes.stored_dtypes.get(spec.dtype, spec.dtype)) for spec in input_specs],
        )
        _check_numbers(stored, manifest, program, index)
        inputs = {name: task.takes.from_stored(manifest.preprocessing, tensor) for name, tensor in stored.items()}
        outputs = _take(tensors, index, output_specs)
        cases.append(Case(program.name, entry["input"], entry["expected"], inputs, outputs))
    if tensors.names:
        raise BundleError(f"{TENSORS_FILE}: unknown tensor {shorten(min(tensors.names))}")
    _check_complete(cases, task.gives.first_programs(manifest))
    return tuple(cases), Tolerances(**{key: float(value) for key, value in document["tolerances"].items()})


def longest_case(bundle: Bundle, program: str | None = None) -> Case:
    """The case with the largest inputs, of all programs or of one: what a benchmark runs.

    Raises:
        BundleError: the bundle has no vectors.
        InputError: the bundle has no such program.
    """
    cases, _ = read_vectors(bundle)
    chosen = [case for case in cases if program in (None, case.program)]
    if not chosen:
        names = [spec.name for spec in bundle.manifest.programs]
        raise InputError(
            f"unknown program {program!r}: {did_you_mean(str(program), names)}expected one of {', '.join(names)}"
        )
    return max(chosen, key=lambda case: sum(tensor.size for tensor in case.inputs.values()))


def _take(tensors: TensorFile, index: int, specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """A case's tensors, as the manifest declares them."""
    return {spec.name: tensors.take(replace(spec, name=f"{index}/{spec.name}")) for spec in specs}


def _check_numbers(inputs: Mapping[str, Tensor], manifest: Manifest, program: ProgramSpec, index: int) -> None:
    """Token ids, masks and types number rows of tables, and not every engine looks how many there are."""
    for name, tensor in inputs.items():
        largest = TASKS[manifest.task].takes.largest(manifest, program, name)
        if largest is not None and (tensor.min() < 0 or tensor.max() > largest):
            found = f"{tensor.min()} to {tensor.max()}"
            raise BundleError(f"{TENSORS_FILE}: {index}/{name}: expected numbers from 0 to {largest}, found {found}")


def _check_entry(entry: Mapping[str, Any], manifest: Manifest, where: str) -> None:
    task = TASKS[manifest.task]
    given, expected = entry["input"], entry["expected"]
    places = [
        each[end] for kind in ("answers", "entities") for each in expected.get(kind, ()) for end in ("start", "end")
    ]
    lists = (given.get("token_ids"), [given.get("samples")], expected.get("prompt"), expected.get("tokens"), places)
    for number in (number for numbers in lists for number in numbers or ()):
        if isinstance(number, float):  # JSON Schema takes 1.0 for an integer; readers in other languages do not
            raise BundleError(f"{where}: expected integers, found {number!r}")
    takes = task.takes
    if tuple(sorted(entry["input"])) not in takes.stored_forms:
        expected = " or ".join(" with ".join(reversed(form)) for form in takes.stored_forms)
        raise BundleError(f"{where}: input: expected {expected}, found {' and '.join(sorted(entry['input']))}")
    file = None if takes.stored_file is None else entry["input"].get(takes.stored_file)
    if file is not None and file not in manifest.files:
        raise BundleError(f"{where}: input.{takes.stored_file}: {shorten(file)} is not among the manifest's files")
    task.gives.check_expected(entry, manifest.postprocessing, where)


def _check_complete(cases: Sequence[Case], programs: Sequence[ProgramSpec]) -> None:
    """A program without a case would pass every verification unseen."""
    for program in programs:
        if all(case.program != program.name for case in cases):
            raise BundleError(f"{CASES_FILE}: no case runs the program {program.name!r}")


# Safetensors files from strangers: the header is compared with what is there before any tensor is read.


MAX_HEADER_BYTES = 16 << 20

_MAX_RANK = 8
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_DTYPES = {
    "F32": "float32", "I32": "int32", "U8": "uint8", "F64": "float64", "F16": "float16", "I64": "int64", "I8": "int8",
}  # fmt: skip
"""By the names of the format: what a bundle's tensors are, and what they are taken for by mistake."""


@dataclass(frozen=True)
class _Entry:
    """A tensor's place in the file."""

    spec: TensorSpec
    begin: int
    end: int


class TensorFile:
    """The tensors of a file, each read when it is taken, and each taken once."""

    def __init__(self, path: Path, where: str) -> None:
        """Read and check the header.

        Args:
            path: the file.
            where: its name, for messages.

        Raises:
            BundleError: it is no safetensors file, or its tensors do not lie one behind the other and fill it.
        """
        self._path = path
        self._where = where
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                start = file.read(_LENGTH.size)
                length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
                if not length <= min(size - _LENGTH.size, MAX_HEADER_BYTES):
                    raise self._corrupted(f"a header of {length} bytes in a file of {size}")
                header = file.read(length)
        except OSError as error:
            raise BundleError(f"{where}: cannot be read: {error.strerror}") from None
        self._begin = _LENGTH.size + length
        self._entries = self._parse(header, size - self._begin)

    @property
    def names(self) -> list[str]:
        """The tensors that were not taken yet."""
        return list(self._entries)

    def take(self, spec: TensorSpec) -> Tensor:
        """Read a tensor.

        Returns:
            An array of the spec's dtype and shape; finite, and the caller's.

        Raises:
            BundleError: it is not there, is another, or holds NaN or infinity.
        """
        entry = self._entries.pop(spec.name, None)
        if entry is None:
            raise BundleError(f"{self._where}: the tensor {spec.name!r} is missing")
        if entry.spec != spec:
            raise BundleError(
                f"{self._where}: {spec.name}: expected {spec.dtype} {spec.shape}, found {entry.spec.dtype}"
                f" {shorten(entry.spec.shape)}"
            )
        count = math.prod(spec.shape)
        stored = np.dtype(spec.dtype).newbyteorder("<")
        tensor = np.fromfile(self._path, stored, count, offset=self._begin + entry.begin)
        if tensor.size != count:
            raise self._corrupted(f"{spec.name} is cut short")
        if not np.isfinite(tensor).all():
            raise BundleError(f"{self._where}: {spec.name} holds NaN or infinity")
        return tensor.reshape(spec.shape).astype(spec.dtype, copy=False)

    def _parse(self, header: bytes, size: int) -> dict[str, _Entry]:
        document = strict_json.loads(header, f"{self._where}: header", MAX_HEADER_BYTES, MAX_RECORDED_KEYS)
        if not isinstance(document, dict):
            raise self._corrupted("its header is no object")
        document.pop(_METADATA, None)
        entries = {name: self._entry(name, value) for name, value in document.items()}
        position = 0
        for entry in sorted(entries.values(), key=lambda each: (each.begin, each.end)):
            if entry.begin != position:
                raise self._corrupted(f"{shorten(entry.spec.name)} starts at {entry.begin}, expected {position}")
            position = entry.end
        if position != size:
            raise self._corrupted(f"its tensors end at {position} of {size} bytes")
        return entries

    def _entry(self, name: str, value: Any) -> _Entry:
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._corrupted(f"{shorten(name)}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise self._corrupted(f"{shorten(name)}: expected one of {', '.join(_DTYPES)}, found {shorten(dtype)}")
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
                raise self._corrupted(f"{shorten(name)}: expected numbers, found {shorten(numbers)}")
        spec = TensorSpec(name, _DTYPES[dtype], tuple(shape))
        length = math.prod(shape[:_MAX_RANK]) * np.dtype(spec.dtype).itemsize
        if len(shape) > _MAX_RANK or len(offsets) != 2 or offsets[1] - offsets[0] != length:
            raise self._corrupted(f"{shorten(name)}: its bytes are not those of its shape")
        return _Entry(spec, offsets[0], offsets[1])

    def _corrupted(self, reason: str) -> BundleError:
        return BundleError(f"{self._where}: not a safetensors file: {reason}")
