"""Looks at model files before an engine opens them, as "Model files" in BUNDLE.md says."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.model_files.refusal import WAY_ON, Broken, Contents, Rows, refusal, refuse, shown
from edgeformer_runtime.tasks.task import MAX_NUMBER, TASKS


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
