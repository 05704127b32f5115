"""Checks native libraries for Android devices with memory pages of 16 KB.

Android 15 runs on such devices, and there the loader refuses a library whose segments are aligned to less
(developer.android.com, "Support 16 KB page sizes").
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgeformer.doctor.finding import Finding, error, fine, info
from edgeformer_runtime.errors import InputError

CHECK = "16 KB pages"
PAGE_BYTES = 16384
ARCHIVES = (".apk", ".aar", ".aab")
LIBRARY = ".so"
WHY = "a device with 16 KB pages cannot load it, and the app ends when it tries; app stores refuse such an app"

# The ELF header (System V ABI, chapter 4): class and byte order, then where the program headers are.
_MAGIC = b"\x7fELF"
_BITS_64 = 2
_HEADER = struct.Struct("<16x2HI3QI6H")
_SEGMENT = struct.Struct("<2I6Q")
_LOAD = 1
_MAX_SEGMENTS = 512
_LOCAL_HEADER = struct.Struct("<26x2H")


@dataclass(frozen=True)
class Library:
    """A native library as it lies in a file.

    Attributes:
        name: its name, in an archive with folders.
        alignment: the smallest alignment of a loaded segment in bytes; None: it has 32 bits, whose devices have small
            pages.
        offset: where it begins in an APK that maps it from there; None: it is a file of its own, or is unpacked.
    """

    name: str
    alignment: int | None
    offset: int | None = None


def is_native(path: Path) -> bool:
    """Whether a path is something with native libraries rather than a bundle."""
    return path.suffix in (*ARCHIVES, LIBRARY)


def examine_libraries(path: Path) -> list[Finding]:
    """Findings on a library, or on those of an Android archive.

    Raises:
        InputError: no such file, or it is no library or archive.
    """
    if not path.is_file():
        raise InputError(f"no file at {path}: expected a library, an APK, an AAR or a bundle")
    libraries = list(_in_archive(path) if path.suffix in ARCHIVES else _alone(path))
    if not libraries:
        return [info(CHECK, f"{path.name} holds no native library")]
    found = [finding for library in libraries for finding in _findings(library)]
    wide = sum(library.alignment is not None for library in libraries)
    return found or [fine(CHECK, f"{wide} of {len(libraries)} libraries have 64 bits, all aligned to 16 KB")]


def _findings(library: Library) -> Iterator[Finding]:
    if library.alignment is None:
        return
    if library.alignment % PAGE_BYTES:
        yield error(
            CHECK,
            f"{library.name} is aligned to pages of {library.alignment // 1024} KB",
            WHY,
            "take a newer release of it, or link it with -Wl,-z,max-page-size=16384 (NDK r28 does so by itself)",
        )
    if library.offset is not None and library.offset % PAGE_BYTES:
        yield error(
            CHECK,
            f"{library.name} lies uncompressed at byte {library.offset} of the archive, no multiple of 16384",
            WHY,
            "align the archive with zipalign -P 16 before it is signed",
        )


def _alone(path: Path) -> Iterator[Library]:
    with path.open("rb") as file:
        yield Library(path.name, _alignment(file, path.name))


def _in_archive(path: Path) -> Iterator[Library]:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for member in archive.infolist():
                if not member.filename.endswith(LIBRARY):
                    continue
                with archive.open(member) as file:
                    alignment = _alignment(file, member.filename)
                # Only the loader of an APK maps libraries where they lie.
                mapped = path.suffix == ".apk" and member.compress_type == zipfile.ZIP_STORED
                yield Library(member.filename, alignment, _data_offset(raw, member) if mapped else None)
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        raise InputError(f"{path}: no archive that can be read: {error}") from None


def _data_offset(raw: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose name and extra field have lengths of their own."""
    raw.seek(member.header_offset)
    name_bytes, extra_bytes = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


def _alignment(file: IO[bytes], name: str) -> int | None:
    """The smallest alignment of the segments that are loaded."""
    try:
        header = file.read(_HEADER.size)
        if not header.startswith(_MAGIC):
            raise InputError(f"{name}: no ELF library: expected it to begin with {_MAGIC!r}")
        if header[4] != _BITS_64:
            return None
        _, _, _, _, offset, _, _, _, size, count, *_ = _HEADER.unpack(header)
        if size != _SEGMENT.size or count > _MAX_SEGMENTS:
            raise InputError(f"{name}: {count} program headers of {size} bytes: expected them of {_SEGMENT.size} bytes")
        file.seek(offset)
        segments = list(_SEGMENT.iter_unpack(file.read(size * count)))
    except struct.error:
        raise InputError(f"{name}: the ELF header is cut off") from None
    return min((int(segment[-1]) for segment in segments if segment[0] == _LOAD), default=PAGE_BYTES)
