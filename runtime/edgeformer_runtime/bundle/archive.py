"""The stored zip of a bundle: written the same byte for byte, read without trusting what it says about itself."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgeformer_runtime.bundle.folder import MAX_FILES, MAX_UNLISTED
from edgeformer_runtime.bundle.strict_json import check_distinct, check_name, shorten
from edgeformer_runtime.errors import BundleError

MAX_FILE_BYTES = (4 << 30) - 1
MAX_DIRECTORY_BYTES = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date that a zip can hold


class Reader:
    """The members of a stored zip, after every check that needs no manifest."""

    def __init__(self, path: Path) -> None:
        """Open and check a zip.

        Raises:
            BundleError: truncated, compressed, encrypted, with links, folders, unsafe or duplicate names, or a bomb.
        """
        self._path = path
        size = path.stat().st_size
        _check_end(path, size)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            raise BundleError(f"{path}: corrupted or truncated zip: {_one_line(error)}") from None
        try:
            self.sizes = _check_members(self._zip.infolist(), size)
            with path.open("rb") as file:
                check_layout(file, self._zip.start_dir, len(self.sizes), size)
        except BaseException:
            self._zip.close()
            raise

    def read(self, name: str, max_bytes: int) -> bytes:
        """A member's bytes.

        Raises:
            BundleError: no such member, larger than `max_bytes`, or corrupted.
        """
        if name not in self.sizes:
            raise BundleError(f"{self._path}: it has no {name} at its root, so it is not a bundle's zip: {HOW_TO_PACK}")
        if self.sizes[name] > max_bytes:
            raise BundleError(f"{name}: expected at most {max_bytes} bytes, found {self.sizes[name]}")
        with self.open(name) as file:
            return file.read()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a stream; reading it checks its CRC."""
        try:
            with self._zip.open(name) as file:
                yield file
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error) as error:
            raise BundleError(f"{self._path}: {name}: corrupted or truncated zip: {_one_line(error)}") from None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()


def write(file: IO[bytes] | io.RawIOBase, members: Mapping[str, Path]) -> None:
    """Write files as a stored zip: sorted names, one date, one permission, so that equal files give equal bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, on every system
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = members[name].stat().st_size
            with members[name].open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def is_canonical(path: Path, members: Mapping[str, Path]) -> bool:
    """Whether a zip has exactly the bytes that `write` gives: none in it is anybody's but the files'."""
    with path.open("rb") as original:
        comparison = _Comparison(original)
        write(comparison, members)
        return comparison.same()


class _Comparison(io.RawIOBase):
    """A file that compares what is written to it with what another file has in the same place.

    A writer of zips goes back to each header once it knows the member's CRC, so a place counts as it was last written.
    """

    def __init__(self, original: IO[bytes]) -> None:
        super().__init__()
        self._original = original
        self._wrong: set[tuple[int, int]] = set()
        self._position = self._end = 0

    def write(self, data: Any) -> int:
        self._original.seek(self._position)
        place = (self._position, len(data))
        self._wrong.discard(place)
        if self._original.read(len(data)) != bytes(data):
            self._wrong.add(place)
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def same(self) -> bool:
        """Whether all that was written is there, and no more."""
        return not self._wrong and self._original.seek(0, io.SEEK_END) == self._end


def _check_end(path: Path, size: int) -> None:
    """Look at the last record before a reader allocates what it announces."""
    with path.open("rb") as file:
        file.seek(max(0, size - END.size))
        tail = file.read(END.size)
    if len(tail) < END.size or not tail.startswith(b"PK\x05\x06"):
        raise BundleError(
            f"{path}: not a bundle's zip, or truncated: it does not end with its end record: {HOW_TO_PACK}"
        )
    _, disk, start_disk, here, count, directory_bytes, _, _ = END.unpack(tail)
    if disk or start_disk or here != count:
        raise BundleError(f"{path}: expected a zip in one piece")
    if count > MAX_FILES + MAX_UNLISTED or directory_bytes > MAX_DIRECTORY_BYTES:
        raise BundleError(f"{path}: expected at most {MAX_FILES} files, found {count}")


def _check_members(members: list[zipfile.ZipInfo], archive_bytes: int) -> dict[str, int]:
    """Sizes by name, if every member is a plain stored file and all of them are really there."""
    sizes: dict[str, int] = {}
    for member in members:
        name = member.orig_filename
        shown = shorten(name)
        if name.endswith("/"):
            raise BundleError(f"{shown}: a zip's folder entry: expected files only: {HOW_TO_PACK}")
        check_name(name)
        if name in sizes:
            raise BundleError(f"{shown} occurs twice in the zip")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BundleError(f"{shown} is a link or device: a bundle holds plain files only")
        if member.flag_bits & 0x2041:  # encrypted, strongly encrypted, hidden directory
            raise BundleError(f"{shown} is encrypted: expected a stored zip")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise BundleError(f"{shown} is compressed: expected a stored zip, as a bundle's is: {HOW_TO_PACK}")
        if member.header_offset < 0:
            raise BundleError(f"{shown}: corrupted or truncated zip: its start is missing")
        if member.file_size > MAX_FILE_BYTES:
            raise BundleError(f"{shown}: expected at most {MAX_FILE_BYTES} bytes, found {member.file_size}")
        sizes[name] = member.file_size
    check_distinct(sizes)
    total = sum(sizes.values())
    if total > archive_bytes:
        raise BundleError(f"the zip has {archive_bytes} bytes but its files state {total}: corrupted, or a zip bomb")
    return sizes


def _one_line(error: Exception) -> str:
    return shorten(str(error) or type(error).__name__)[1:-1]


# Where each byte of a bundle's zip belongs (APPNOTE 4.3): members without a gap, their directory, the end, no more.
#
# What this refuses is hidden from whoever lists a zip: bytes before, between and behind files, extra fields, comments,
# and headers that say something else than the directory.


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
        directory: where its directory starts.
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
    _check_zip_end(records, length, position, count)


def _entries(records: bytes, count: int) -> tuple[list[_Entry], int]:
    """The directory's entries, and how many bytes they take."""
    entries, at = [], 0
    for _ in range(count):
        if len(records) < at + _ENTRY.size:
            raise BundleError("corrupted or truncated zip: its directory is cut off")
        fields = _ENTRY.unpack_from(records, at)
        signature, stated, (packed, size, name_length, extra_length) = fields[0], fields[2:8], fields[8:12]
        comment_length, disk, offset = fields[12], fields[13], fields[16]
        begin = at + _ENTRY.size
        name = records[begin : begin + name_length]
        extra = records[begin + name_length : begin + name_length + extra_length]
        shown = shorten(name.decode(errors="replace"))
        values = _with_zip64([size, packed, offset], extra)
        if signature != b"PK\x01\x02" or disk or comment_length or values is None or values[0] != values[1]:
            raise _odd(f"{shown} has a comment, an extra field or a corrupted entry")
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


def _check_zip_end(records: bytes, length: int, directory: int, count: int) -> None:
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
