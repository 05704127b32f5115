"""Writes an APK: a zip whose uncompressed members lie where Android can map them into memory."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LIBRARY_ALIGNMENT = 16384
"""Bytes. Devices with 16 KB pages load a library out of the APK only where it starts on a page."""

ASSET_ALIGNMENT = 64
"""Bytes. What inference engines want of weights that they read in place."""

RESOURCE_ALIGNMENT = 4

BUNDLES = "assets/bundles/"
"""Where the app's bundles lie, each in a folder of its own."""

# Extra field of apksig that states an alignment and fills up to it: apksigner keeps it when it writes the APK anew.
_ALIGNMENT_FIELD = 0xD935
_LOCAL_HEADER_BYTES = 30
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Member:
    """A file of an APK.

    Attributes:
        name: its path in the APK.
        data: its bytes.
        alignment: where its bytes must begin, a multiple of this from the APK's begin; None: it is compressed.
    """

    name: str
    data: bytes
    alignment: int | None


def write_apk(path: Path, members: Iterator[Member]) -> None:
    """Write the members in their order. The same members give the same bytes."""
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name, _EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED if member.alignment is None else zipfile.ZIP_STORED
            if member.alignment is not None:
                info.extra = _padding(stream, member.name, member.alignment)
            archive.writestr(info, member.data)


def _padding(stream: BinaryIO, name: str, alignment: int) -> bytes:
    """The extra field after which a member's bytes begin at a multiple of `alignment`."""
    field = struct.pack("<HHH", _ALIGNMENT_FIELD, 2, alignment)
    begin = stream.tell() + _LOCAL_HEADER_BYTES + len(name.encode()) + len(field)
    fill = -begin % alignment
    return struct.pack("<HHH", _ALIGNMENT_FIELD, 2 + fill, alignment) + bytes(fill)


def data_offset(apk: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin in its archive. The local header may differ from the directory's in its length."""
    with apk.open("rb") as stream:
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER_BYTES)
    name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
    return info.header_offset + _LOCAL_HEADER_BYTES + int(name_bytes) + int(extra_bytes)
