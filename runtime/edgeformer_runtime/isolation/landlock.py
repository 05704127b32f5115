"""Landlock: a Linux process says which files it will read, and the kernel holds it to that."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38

# LANDLOCK_ACCESS_FS_*: bit 0 runs files, 1 writes, 2 reads, 3 lists folders, 4 to 12 remove and make, then one more
# with versions 2 (refer), 3 (truncate) and 5 (ioctl).
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_FILE_ACCESS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FILE_ACCESS_SINCE_5 = (1 << 16) - 1
_TCP = 0b11
"""To bind and to connect, from version 4."""
_SCOPES = 0b11
"""Abstract sockets and signals, from version 6."""


def restrict_files(paths: Iterable[str]) -> bool:
    """Let this thread, and threads that it starts, read these files and folders, and write nothing.

    Returns:
        Whether the kernel can.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    if version < 1:
        return False
    access = _FILE_ACCESS.get(version, _FILE_ACCESS_SINCE_5)
    attributes = struct.pack("<QQQ", access, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if rules < 0:
        return False
    try:
        for path in dict.fromkeys(map(os.path.realpath, paths)):
            _allow(libc, rules, path)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0)) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not every system has every path
        return
    try:
        access = _READ_FILE | _READ_FOLDER if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("<Qi", access, descriptor)
        libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)
