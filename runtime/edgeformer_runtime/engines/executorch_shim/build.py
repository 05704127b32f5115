"""Builds of the shim: what is known of each, where they are, and how one is made, by the system's compiler."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime.delivery import cache_folder, check_names, make_private, who_can_replace, work_folder
from edgeformer_runtime.engines.executorch_shim.package import (
    Package,
    copy_libraries,
    fetch_wheel,
    installed_package,
    read_library,
    unpack_wheel,
)
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.interface import CountProgress

SOURCE = Path(__file__).with_name("shim.cpp")
LIBRARY_NAME = "libedgeformer_executorch.so"
RECORD_NAME = "build.json"
AGAIN = "edgeformer-runtime build-executorch"
"""What makes a build that fits."""


@dataclass(frozen=True)
class Record:
    """What a build was made from. Equal records are equal builds.

    Attributes:
        executorch: the version of the libraries.
        compiler: the compiler's name and version, in its own words.
        machine: what it runs on, as `uname -m` names it.
        source_sha256: of the shim's source.
    """

    executorch: str
    compiler: str
    machine: str
    source_sha256: str

    @property
    def folder_name(self) -> str:
        """Where in a user's cache this build belongs: one folder for each record."""
        key = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.executorch}-{self.machine}-{key}"

    def to_json(self) -> str:
        """The text of `build.json`."""
        return json.dumps(asdict(self), sort_keys=True, indent=2) + "\n"


@dataclass(frozen=True)
class Build:
    """A build: a folder with the shim, and ExecuTorch's libraries beside it."""

    folder: Path
    record: Record

    @property
    def library(self) -> Path:
        """The shim itself."""
        return self.folder / LIBRARY_NAME

    def to_json(self) -> dict[str, str | int]:
        """The build for scripts: its folder, its record, and its size in bytes."""
        size = sum(path.stat().st_size for path in self.folder.iterdir())
        return {"folder": str(self.folder), "size_bytes": size, **asdict(self.record)}


@cache
def source_sha256() -> str:
    """The hash of the shim's source, in hexadecimal: a build of another source speaks another interface."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def builds_folder() -> Path:
    """Where this user's builds are; it need not exist."""
    return cache_folder() / "executorch"


def read_build(folder: Path) -> Build:
    """The build in a folder, if it fits this machine and this version of the package.

    Raises:
        EngineError: it is none, or does not fit.
    """
    try:
        record = Record(**json.loads((folder / RECORD_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise EngineError(f"{folder}: expected a folder that `{AGAIN} --out` has written") from None
    if record.source_sha256 != source_sha256():
        raise EngineError(f"{folder}: built by another version of edgeformer-runtime: {AGAIN}")
    if record.machine != platform.machine():
        raise EngineError(f"{folder}: built for {record.machine}, this machine is {platform.machine()}: {AGAIN}")
    return Build(folder, record)


def find_build() -> Build | None:
    """This user's build for this machine and version of the package, of several the newest; None: there is none.

    Raises:
        EngineError: another user could have put a library there.
    """
    fitting = []
    for path in builds_folder().glob(f"*/{RECORD_NAME}"):
        try:
            fitting.append((path.stat().st_mtime_ns, read_build(path.parent)))
        except EngineError:
            continue  # made for another machine, or by another version of the package
    if not fitting:
        return None
    build = max(fitting, key=lambda each: each[0])[1]
    check_private(build)
    return build


def check_private(build: Build) -> None:
    """Refuse a build that another user can replace: its libraries' code would run as this user.

    Raises:
        EngineError: names what is open to others.
    """
    for path in (*build.folder.glob("*.so*"), build.folder):
        reason = who_can_replace(path)
        if reason is not None:
            raise EngineError(f"the shim is not loaded: {reason}: chmod go-w it, remove {build.folder}, and {AGAIN}")


if TYPE_CHECKING:
    from collections.abc import Iterator


_STEPS = 3  # executorch's files are there, the shim is compiled, the build is complete
_FOREIGN = ("libtorch", "libc10", "libpython")
"""The start of what no library of a build may need."""


def build_shim(wheel: Path | None = None, out: Path | None = None, report: CountProgress | None = None) -> Build:
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
        record = Record(package.version, compiler.version, compiler.machine, source_sha256())
        folder = builds_folder() / record.folder_name if out is None else out
        if folder.exists():
            _tell(report, _STEPS)
            return Build(folder, record)
        with _new_folder(folder) as unfinished:
            compile_shim(compiler, package, unfinished / LIBRARY_NAME)
            _tell(report, 2)
            copy_libraries(package, unfinished)
            _check_needs(unfinished)
            (unfinished / RECORD_NAME).write_text(record.to_json(), encoding="utf-8")
            _tell(report, 3)
    return Build(folder, record)


def _tell(report: CountProgress | None, finished: int) -> None:
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
            if not (folder / RECORD_NAME).is_file():  # else another process has built the same meanwhile
                raise


def _check_needs(folder: Path) -> None:
    """Raises EngineError: a library of a build needs torch or Python."""
    for path in sorted(folder.glob("*.so")):
        foreign = [name for name in read_library(path).needed if name.startswith(_FOREIGN)]
        if foreign:
            raise EngineError(f"{path.name} needs {', '.join(foreign)}: this executorch cannot run without torch")


# The system's C++ compiler, and what it makes of the shim's source.


_CANDIDATES = ("g++", "clang++", "c++")
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
# What executorch-config.cmake of the wheel asks of those who include its headers.
_DEFINITIONS = ("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL")
# Kernels and delegates register themselves when they are loaded, so they are needed though nothing refers to them.
# They lie beside the shim. No symbol may stay open, so that nothing is needed but these libraries and the system's.
_LINKING = ("-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", "-Wl,-z,defs")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: how it is called; CXX may hold arguments, too.
        version: the first line that it says of itself.
        machine: what it makes code for, as `uname -m` names it.
    """

    command: tuple[str, ...]
    version: str
    machine: str


def find_compiler() -> Compiler:
    """CXX, or the first of g++, clang++ and c++ that is installed.

    Raises:
        EngineError: there is none, or it does not start.
    """
    stated = os.environ.get("CXX")
    command = (
        tuple(shlex.split(stated)) if stated else next(((name,) for name in _CANDIDATES if shutil.which(name)), ())
    )
    if not command:
        raise EngineError("no C++ compiler found: sudo apt-get install g++ (Debian, Raspberry Pi OS), or set CXX")
    version = _run([*command, "--version"]).splitlines()[0]
    return Compiler(command, version, _run([*command, "-dumpmachine"]).partition("-")[0].strip())


def compile_shim(compiler: Compiler, package: Package, library: Path) -> None:
    """Compile and link the shim against a package's headers and libraries.

    Raises:
        EngineError: the compiler makes code for another machine than the package's, or fails.
    """
    if compiler.machine != package.machine:
        raise EngineError(
            f"executorch's libraries are for {package.machine}, {compiler.command[0]} makes code for"
            f" {compiler.machine}: take the wheel for {compiler.machine}, or set CXX to a compiler for"
            f" {package.machine} (of Debian: {package.machine}-linux-gnu-g++)"
        )
    headers = package.root / "include"
    folders = (headers, headers / "executorch" / "runtime" / "core" / "portable_type" / "c10")
    includes = [part for folder in folders for part in ("-isystem", str(folder))]
    libraries = [str(path) for path in package.libraries]
    _run([*compiler.command, *_FLAGS, *_DEFINITIONS, *includes, str(SOURCE), "-o", str(library), *_LINKING, *libraries])


def _run(command: Sequence[str]) -> str:
    """A compiler's output. Raises EngineError with its first complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error}: set CXX to a C++ compiler") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise EngineError(f"{command[0]} failed: {reason}")
    return done.stdout
