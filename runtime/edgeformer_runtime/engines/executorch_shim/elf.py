"""What a shared library of Linux says of itself: its machine, and the libraries that it needs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgeformer_runtime.errors import EngineError

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
