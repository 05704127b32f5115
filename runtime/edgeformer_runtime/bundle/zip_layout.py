"""Where each byte of a bundle's zip belongs (APPNOTE 4.3): members without a gap, their directory, the end, no more.

What this refuses is hidden from whoever lists a zip: bytes before, between and behind files, extra fields, comments,
and headers that say something else than the directory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

HOW_TO_PACK = "use edgeformer pack FOLDER, which makes the zip that readers take"

END = struct.Struct("<4s4H2LH")
"""The end record: signature, disk, first disk, entries here, entries, directory's size, its offset, comment length."""

# Signature, [made by,] version, flags, method, time, date, CRC, sizes, lengths of name and extra field, [and so on].
_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64_ID = 1
_WITH_DESCRIPTOR = 0x0008


@dataclass(frozen=True)
class _Entry:
    """A member as the directory has it: `stated` is what its local header has to repeat."""

    name: bytes
    stated: tuple[int, ...]
    size: int
    offset: int


def check_layout(file: IO[bytes], directory: int, count: int, archive_bytes: int) -> None:
    """Account for every byte of a zip.

    Args:
        file: the zip, which can be sought in.
        directory: where its directory begins.
        count: how many members it has.
        archive_bytes: its size.

    Raises:
        BundleError: a byte that belongs to no file, header or record.
    """
    file.seek(directory)
    records = file.read(archive_bytes - directory)
    entries, length = _entries(records, count)
    position = 0
    for entry in sorted(entries, key=lambda each: each.offset):
        if entry.offset != position:
            raise _odd(f"other bytes lie before {shorten(entry.name.decode(errors='replace'))}")
        file.seek(position)
        position += _header_bytes(file, entry) + entry.size
    if position != directory:
        raise _odd("other bytes lie behind the files")
    _check_end(records, length, position, count)


def _entries(records: bytes, count: int) -> tuple[list[_Entry], int]:
    """The directory's entries, and how many bytes they take."""
    entries, at = [], 0
    for _ in range(count):
        if len(records) < at + _ENTRY.size:
            raise BundleError("spoiled or truncated zip: its directory is cut off")
        fields = _ENTRY.unpack_from(records, at)
        signature, stated, (packed, size, name_length, extra_length) = fields[0], fields[2:8], fields[8:12]
        comment_length, disk, offset = fields[12], fields[13], fields[16]
        begin = at + _ENTRY.size
        name = records[begin : begin + name_length]
        extra = records[begin + name_length : begin + name_length + extra_length]
        shown = shorten(name.decode(errors="replace"))
        values = _with_zip64([size, packed, offset], extra)
        if signature != b"PK\x01\x02" or disk or comment_length or values is None or values[0] != values[1]:
            raise _odd(f"{shown} has a comment, an extra field or a spoiled entry")
        if stated[1] & _WITH_DESCRIPTOR:
            raise _odd(f"{shown} has its size behind its data")
        entries.append(_Entry(name, stated, values[0], values[2]))
        at = begin + name_length + extra_length
    return entries, at


def _header_bytes(file: IO[bytes], entry: _Entry) -> int:
    """How many bytes a member's local header takes, if it says what the directory says."""
    header = file.read(_LOCAL.size)
    if len(header) == _LOCAL.size:
        signature, *stated, packed, size, name_length, extra_length = _LOCAL.unpack(header)
        name, extra = file.read(name_length), file.read(extra_length)
        same = signature == b"PK\x03\x04" and tuple(stated) == entry.stated and name == entry.name
        if same and _with_zip64([size, packed], extra) == [entry.size, entry.size]:
            return _LOCAL.size + len(name) + len(extra)
    raise _odd(f"the header of {shorten(entry.name.decode(errors='replace'))} is not as the directory has it")


def _with_zip64(values: list[int], extra: bytes) -> list[int] | None:
    """The values, those that do not fit taken from zip64's extra field; None: another field, or one without need."""
    wide = [index for index, value in enumerate(values) if value == _IN_ZIP64]
    if not wide:
        return None if extra else values
    layout = struct.Struct(f"<2H{len(wide)}Q")
    if len(extra) != layout.size:
        return None
    kind, length, *found = layout.unpack(extra)
    if (kind, length) != (_ZIP64_ID, layout.size - 4):
        return None
    by_index = dict(zip(wide, found, strict=True))
    return [by_index.get(index, value) for index, value in enumerate(values)]


def _check_end(records: bytes, length: int, directory: int, count: int) -> None:
    """The records behind the directory's `length` bytes: zip64's two where there are some, and the end record."""
    behind = records[length:]
    wide = len(behind) == _END64.size + _LOCATOR.size + END.size
    if not wide and len(behind) != END.size:
        raise _odd("other bytes lie between its directory and its end")
    _, _, _, _, _, stated_length, stated_offset, comment = END.unpack(behind[-END.size :])
    right = comment == 0
    if wide:
        end = _END64.unpack_from(behind)
        locator = _LOCATOR.unpack_from(behind, _END64.size)
        right &= (end[0], end[1], end[4:]) == (b"PK\x06\x06", _END64.size - 12, (0, 0, count, count, length, directory))
        right &= locator == (b"PK\x06\x07", 0, directory + length, 1)
    right &= stated_length == length or (wide and stated_length == _IN_ZIP64)
    right &= stated_offset == directory or (wide and stated_offset == _IN_ZIP64)
    if not right:
        raise _odd("its end does not say where its directory lies")


def _odd(what: str) -> BundleError:
    return BundleError(f"not a bundle's zip: {what}: {HOW_TO_PACK}")
