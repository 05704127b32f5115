"""The stored zip of a bundle: written the same byte for byte, read without trusting what it says about itself."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgeformer_runtime.bundle.names import check_distinct, check_name
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.zip_layout import END, HOW_TO_PACK, check_layout
from edgeformer_runtime.errors import BundleError

MAX_FILES = 10_000
MAX_UNLISTED = 2
"""The manifest and its signature, which the manifest does not list."""
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
            raise BundleError(f"{path}: spoiled or truncated zip: {_one_line(error)}") from None
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
            BundleError: no such member, larger than `max_bytes`, or spoiled.
        """
        if name not in self.sizes:
            raise BundleError(f"{self._path}: no {name} in it, at its root: expected a bundle's zip: {HOW_TO_PACK}")
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
            raise BundleError(f"{self._path}: {name}: spoiled or truncated zip: {_one_line(error)}") from None

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
            raise BundleError(f"{shown}: spoiled or truncated zip: its begin is missing")
        if member.file_size > MAX_FILE_BYTES:
            raise BundleError(f"{shown}: expected at most {MAX_FILE_BYTES} bytes, found {member.file_size}")
        sizes[name] = member.file_size
    check_distinct(sizes)
    total = sum(sizes.values())
    if total > archive_bytes:
        raise BundleError(f"the zip has {archive_bytes} bytes but its files state {total}: spoiled, or a zip bomb")
    return sizes


def _one_line(error: Exception) -> str:
    return shorten(str(error) or type(error).__name__)[1:-1]
