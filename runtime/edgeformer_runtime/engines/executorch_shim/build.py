"""Building the shim: from executorch's wheel and the system's compiler to a folder that engines load."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime.cache import make_private
from edgeformer_runtime.delivery import check_names, work_folder
from edgeformer_runtime.engines.executorch_shim import builds
from edgeformer_runtime.engines.executorch_shim.builds import Build, Record
from edgeformer_runtime.engines.executorch_shim.compiler import compile_shim, find_compiler
from edgeformer_runtime.engines.executorch_shim.elf import read_library
from edgeformer_runtime.engines.executorch_shim.package import (
    Package,
    copy_libraries,
    fetch_wheel,
    installed_package,
    unpack_wheel,
)
from edgeformer_runtime.errors import EngineError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Report = Callable[[int, int], None]

_STEPS = 3  # executorch's files are there, the shim is compiled, the build is complete
_FOREIGN = ("libtorch", "libc10", "libpython")
"""The beginnings of what no library of a build may need."""


def build_shim(wheel: Path | None = None, out: Path | None = None, report: Report | None = None) -> Build:
    """Build the shim, or find that it is built.

    Args:
        wheel: executorch's wheel, or a folder where it is unpacked; None: the installed package, which is not
            imported, or the index's wheel for this machine, without what it depends on.
        out: a folder to make, for this or another machine; None: the one in the user's cache.
        report: called with how many steps are done, and of how many.

    Returns:
        The build. A build for another machine (CXX may be a cross compiler) is none that this one can load.

    Raises:
        InputError: `wheel` is none of executorch, or `out` exists.
        EngineError: no compiler, no wheel, or one that does not fit; the message says what to do.
    """
    check_names(out)
    if out is not None and out.exists():
        raise InputError(f"{out}: expected a new folder, this one exists")
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="edgeformer-") as scratch:
        package = _package(wheel, Path(scratch))
        _tell(report, 1)
        record = Record(package.version, compiler.version, compiler.machine, builds.source_sha256())
        folder = builds.builds_folder() / record.folder_name if out is None else out
        if folder.exists():
            _tell(report, _STEPS)
            return Build(folder, record)
        with _new_folder(folder) as unfinished:
            compile_shim(compiler, package, unfinished / builds.LIBRARY_NAME)
            _tell(report, 2)
            copy_libraries(package, unfinished)
            _check_needs(unfinished)
            (unfinished / builds.RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
            _tell(report, 3)
    return Build(folder, record)


def _tell(report: Report | None, finished: int) -> None:
    if report is not None:
        report(finished, _STEPS)


def _package(wheel: Path | None, scratch: Path) -> Package:
    if wheel is not None and not wheel.is_dir():
        return unpack_wheel(wheel, scratch)
    installed = installed_package(wheel)
    if installed is not None:
        return installed
    if wheel is not None:
        raise InputError(f"{wheel}: expected a folder with executorch's wheel unpacked, found none in it")
    return unpack_wheel(fetch_wheel(scratch), scratch)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` when the block ends well."""
    make_private(folder.parent)
    with work_folder(folder.parent) as work:
        unfinished = work / folder.name
        unfinished.mkdir()
        unfinished.chmod(0o755)
        yield unfinished
        for path in unfinished.iterdir():
            path.chmod(0o755)  # whatever the wheel and the umask say: who can write to a library can run code
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / builds.RECORD_NAME).is_file():  # else another process has built the same meanwhile
                raise


def _check_needs(folder: Path) -> None:
    """Raises EngineError: a library of a build needs torch or Python."""
    for path in sorted(folder.glob("*.so")):
        foreign = [name for name in read_library(path).needed if name.startswith(_FOREIGN)]
        if foreign:
            raise EngineError(f"{path.name} needs {', '.join(foreign)}: this executorch cannot run without torch")
