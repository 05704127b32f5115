"""Looks at model files before an engine opens them, as "Model files" in BUNDLE.md says, and what all readers share."""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.tasks.task import MAX_NUMBER, TASKS

MAX_SIZE = (1 << 31) - 1
MAX_RANK = 8
MAX_ELEMENTS = 1 << 26
"""Of a tensor that is computed; constants are bounded by the file that holds their bytes."""

WAY_ON = "convert the bundle again, or get it again from its publisher"

Shape = tuple[int, ...]


class Broken(Exception):
    """A model file breaks a rule; whoever knows the file's name makes a `BundleError` of it."""


def refuse(message: str) -> NoReturn:
    """Raises Broken."""
    raise Broken(message)


def refusal(name: str, error: Broken) -> BundleError:
    """The error for a user."""
    return BundleError(f"{name}: {error}: {WAY_ON}")


def shown(name: object) -> str:
    """A name from the file, short and without control characters."""
    return shorten(name)


def check_shape(shape: Sequence[int], what: str, computed: bool = True) -> Shape:
    """The shape, if it is static and within the limits."""
    if len(shape) > MAX_RANK:
        refuse(f"{what} has {len(shape)} axes, at most {MAX_RANK} are allowed")
    if shape and (min(shape) < 0 or max(shape) > MAX_SIZE):
        refuse(f"{what} has the shape {shorten(list(shape))}: expected sizes of 0 to 2^31 - 1")
    if computed and math.prod(shape) > MAX_ELEMENTS:
        refuse(f"{what} has the shape {shorten(list(shape))}: expected at most 2^26 elements")
    return tuple(shape)


def check_range(offset: int, size: int, end: int, what: str) -> None:
    """Refuse bytes that do not lie before `end`."""
    if not (0 <= offset <= end and 0 <= size <= end - offset):
        refuse(f"{what} lies at {offset} with {size} bytes, of {end}")


# What the inputs of a program index, and how many rows there are: not every engine looks before it reads.


Rows = Mapping[str, Mapping[str, int]]
"""By the names of a program and of its input: the input's numbers must be below this."""
Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Contents:
    """What a reader found in one model file.

    Attributes:
        operators: how often each occurs.
        rows: of the inputs that index a table, the rows of the smallest such table.
    """

    operators: Counter[str]
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


class IndexTrace(Generic[Value]):
    """Follows the inputs of a graph, or other values in it, to the tables that they index.

    `Value` is how the format names what flows through a graph. Numbers that are computed are not followed: there the
    engine has to look, and a format whose engine does not has to refuse them.
    """

    def __init__(self, inputs: Iterable[Value]) -> None:
        """`inputs`: the values to follow."""
        self._sources: dict[Value, Value] = {each: each for each in inputs}
        self._rows: dict[Value, int] = {}

    def move(self, value: Value, results: Iterable[Value]) -> None:
        """An operator passes numbers on as they are: in another shape or type, or some of them."""
        if value in self._sources:
            self._sources.update((result, self._sources[value]) for result in results)

    @property
    def followed(self) -> Set[Value]:
        """What has numbers of an input."""
        return self._sources.keys()

    def forget(self, values: Iterable[Value]) -> None:
        """Numbers are computed, or written over."""
        for value in values:
            self._sources.pop(value, None)

    def index(self, indices: Value, rows: int) -> Value | None:
        """An operator takes rows of a table by numbers; returns where these come from, None: they are computed."""
        source = self._sources.get(indices)
        if source is not None:
            self._rows[source] = min(rows, self._rows.get(source, rows))
        return source

    def rows(self, names: Mapping[Value, str]) -> dict[str, int]:
        """What was found, by the inputs' names."""
        return {names[value]: rows for value, rows in self._rows.items() if value in names}


def check_model_files(bundle: Bundle) -> Rows:
    """Refuse a bundle whose model files would harm whoever opens them.

    Returns:
        For the inputs that index a table, how many rows it has: whoever runs the model holds the numbers to it.

    Raises:
        BundleError: names the file, the rule that it breaks, and where.
    """
    contents = read_contents(bundle)
    manifest, counts = bundle.manifest, contents.operators
    stated = manifest.operators
    for name in sorted({*stated, *counts}):
        if counts[name] != stated.get(name, 0):
            raise BundleError(
                f"the model has the operator {shown(name)} {counts[name]} times, the manifest states"
                f" {stated.get(name, 0)}: {WAY_ON}"
            )
    largest = TASKS[manifest.task].takes.largest
    for program in manifest.all_programs:
        for name, rows in contents.rows.get(program.name, {}).items():
            number = largest(manifest, program, name)
            # A table of one row is that of a model without token types: a run that asks for another row is refused.
            if number is not None and 1 < rows <= number < MAX_NUMBER:
                raise BundleError(
                    f"{program.file}: {program.name}: the input {shown(name)} may be {number}, the model's table has"
                    f" {rows} rows: {WAY_ON}"
                )
    return contents.rows


def read_contents(bundle: Bundle) -> Contents:
    """What the model files have, whatever the manifest states. Errors as of `check_model_files`."""
    found = Contents(Counter())
    for file in sorted({program.file for program in bundle.manifest.all_programs}):
        programs = [program for program in bundle.manifest.all_programs if program.file == file]
        try:
            contents = _CHECKS[bundle.manifest.target](bundle, file, programs)
        except Broken as error:
            raise refusal(file, error) from None
        found.operators.update(contents.operators)
        found.rows.update(contents.rows)
    return found


def mapped(path: Path) -> memoryview:
    """A file's bytes, read where they lie."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            refuse("it is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _onnx(bundle: Bundle, file: str, programs: list[ProgramSpec]) -> Contents:
    from edgeformer_runtime.model_files.onnx_file import check_onnx

    folder = file.rpartition("/")[0]
    sizes = {
        name.rpartition("/")[2]: entry.size
        for name, entry in bundle.manifest.files.items()
        if name.rpartition("/")[0] == folder
    }
    return check_onnx(mapped(bundle.path(file)), sizes, programs)


def _litert(bundle: Bundle, file: str, programs: list[ProgramSpec]) -> Contents:
    from edgeformer_runtime.model_files.litert_file import check_litert

    return check_litert(mapped(bundle.path(file)), programs)


def _executorch(bundle: Bundle, file: str, programs: list[ProgramSpec]) -> Contents:
    from edgeformer_runtime.model_files.executorch_file import check_executorch

    return check_executorch(mapped(bundle.path(file)), programs)


def _coreml(bundle: Bundle, file: str, programs: list[ProgramSpec]) -> Contents:
    from edgeformer_runtime.model_files.coreml_file import check_coreml

    prefix = f"{file}/"
    names = [name.removeprefix(prefix) for name in bundle.manifest.files if name.startswith(prefix)]
    return check_coreml(names, lambda name: mapped(bundle.path(prefix + name)), programs)


_CHECKS: dict[str, Callable[[Bundle, str, list[ProgramSpec]], Contents]] = {
    "litert": _litert,
    "onnx": _onnx,
    "executorch": _executorch,
    "coreml": _coreml,
}
