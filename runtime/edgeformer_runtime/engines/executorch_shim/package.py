"""The files of executorch's wheel that the shim needs, its headers and libraries: installed, in a wheel, or fetched."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from edgeformer_runtime.errors import EngineError, InputError

REQUIREMENT = "executorch>=1.5,<1.6"
LIBRARIES = (
    "libexecutorch.so",
    "libexecutorch_threadpool.so",
    "libexecutorch_kernels_optimized.so",
    "libexecutorch_kernels_quantized.so",
    "libexecutorch_backend_xnnpack.so",
)
"""What a program may call: the runtime, its pool, the kernels, those of quantized models, and the delegate."""

_SUPPORTED = re.compile(r"1\.5(\.\d+)*")
_WANTED = re.compile(r"executorch/(include/.*\.h|lib/libexecutorch\w*\.so)")
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")


@dataclass(frozen=True)
class Package:
    """An executorch of one version.

    Attributes:
        version: as its metadata states it.
        root: the folder with `include` and `lib`.
    """

    version: str
    root: Path

    def __post_init__(self) -> None:
        """Raises EngineError: another version than the shim is written for, or no libraries for C++ in it."""
        if not _SUPPORTED.fullmatch(self.version):
            raise EngineError(f"expected {REQUIREMENT}, found {self.version}: take a wheel of that version")
        for name in LIBRARIES:
            if not (self.root / "lib" / name).is_file():
                raise EngineError(f"{self.root}: no lib/{name}: expected executorch's wheel for Linux")

    @property
    def libraries(self) -> tuple[Path, ...]:
        """The shared libraries that the shim is linked with."""
        return tuple(self.root / "lib" / name for name in LIBRARIES)

    @property
    def machine(self) -> str:
        """What the libraries run on, as `uname -m` names it."""
        return read_library(self.libraries[0]).machine


def installed_package(folder: Path | None = None) -> Package | None:
    """The installed executorch, found without importing anything of it.

    Args:
        folder: where to look, a folder that a wheel was unpacked into; None: where this Python looks for packages.

    Returns:
        The package, or None: there is none.
    """
    places = sys.path if folder is None else [str(folder)]
    installed = next(iter(distributions(name="executorch", path=places)), None)
    return None if installed is None else Package(installed.version, Path(str(installed.locate_file("executorch"))))


def unpack_wheel(wheel: Path, folder: Path) -> Package:
    """Unpack what the shim needs of a wheel, and nothing of Python.

    Args:
        wheel: the file.
        folder: an existing folder to unpack into.

    Raises:
        InputError: it is no wheel of executorch.
        EngineError: of another version, or for another system than Linux.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            metadata = next((name for name in names if _METADATA.fullmatch(name)), None)
            stated = dict(
                line.split(": ", 1)
                for line in (archive.read(metadata).decode() if metadata else "").split("\n\n")[0].splitlines()
                if line.startswith(("Name: ", "Version: "))
            )
            if stated.get("Name") != "executorch":
                raise InputError(f"{wheel}: expected a wheel of executorch, found {stated.get('Name', 'no wheel')}")
            archive.extractall(folder, [name for name in names if _WANTED.fullmatch(name)])
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InputError(f"{wheel}: expected a wheel of executorch: {error}") from None
    return Package(stated["Version"], folder / "executorch")


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel for this machine and this Python with pip, without anything that it depends on.

    Raises:
        EngineError: pip is missing or finds none.
    """
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineError(f"pip cannot be started ({error}): give executorch's wheel with --wheel") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"pip found no {REQUIREMENT} for this machine ({reason}): give a wheel with --wheel")
    return next(folder.glob("executorch-*.whl"))


def copy_libraries(package: Package, folder: Path) -> None:
    """Copy a package's libraries, so that the shim needs nothing else of it."""
    for library in package.libraries:
        shutil.copy2(library, folder / library.name)


# What a shared library of Linux says of itself: its machine, and the libraries that it needs.


MACHINES = {62: "x86_64", 183: "aarch64"}
"""ELF's numbers (e_machine) of the machines that executorch has wheels for."""

_HEADER = struct.Struct("<4s2B10xHHI3QI4H")  # magic, class, byte order, type, machine, ... program headers, ...
_PROGRAM_HEADER = struct.Struct("<2I6Q")  # type, flags, offset, address, physical address, file size, size, alignment
_ENTRY = struct.Struct("<2Q")  # of the dynamic section: tag, value
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRINGS = 1, 5
_64_BIT, _LITTLE_ENDIAN = 2, 1


@dataclass(frozen=True)
class SharedLibrary:
    """A library's facts.

    Attributes:
        machine: as `uname -m` names it.
        needed: the names of the libraries that the loader has to find for it (DT_NEEDED).
    """

    machine: str
    needed: tuple[str, ...]


def read_library(path: Path) -> SharedLibrary:
    """Read a library's headers (System V ABI, chapters 4 and 5).

    Raises:
        EngineError: it is no shared library for a 64-bit little-endian Linux.
    """
    data = path.read_bytes()
    try:
        magic, width, order, _, machine, _, _, table, *_, entry_size, count, _ = _HEADER.unpack_from(data)
        if (magic, width, order) != (b"\x7fELF", _64_BIT, _LITTLE_ENDIAN):
            raise ValueError("no 64-bit ELF file")
        headers = [_PROGRAM_HEADER.unpack_from(data, table + index * entry_size) for index in range(count)]
        loads = [(address, offset, size) for kind, _, offset, address, _, size, _, _ in headers if kind == _LOAD]
        start, length = next((offset, size) for kind, _, offset, _, _, size, _, _ in headers if kind == _DYNAMIC)
        entries = [_ENTRY.unpack_from(data, start + step) for step in range(0, length, _ENTRY.size)]
        strings = _file_offset(dict(entries)[_STRINGS], loads)
        needed = tuple(_string(data, strings + value) for tag, value in entries if tag == _NEEDED)
        return SharedLibrary(MACHINES.get(machine, f"machine {machine}"), needed)
    except (struct.error, ValueError, KeyError, StopIteration) as error:
        raise EngineError(f"{path}: expected a shared library of a 64-bit Linux: {error}") from None


def _file_offset(address: int, loads: list[tuple[int, int, int]]) -> int:
    """Where in the file lies what will be at this address."""
    for start, offset, size in loads:
        if start <= address < start + size:
            return offset + address - start
    raise ValueError("an address outside the file")


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()
