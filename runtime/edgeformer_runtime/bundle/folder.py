"""The files of a bundle's folder: plain files only, found without following links."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from edgeformer_runtime.bundle.strict_json import MAX_NAME_PARTS, shorten
from edgeformer_runtime.errors import BundleError, InputError

MAX_FILES = 10_000
MAX_UNLISTED = 2
"""The manifest and its signature, which the manifest does not list."""
LEFT_BEHIND = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Plain files that file managers leave in folders that people look into: no part of a bundle."""


class Reader:
    """A folder's files, as `archive.Reader` has a zip's."""

    def __init__(self, path: Path) -> None:
        """Find all files.

        Raises:
            BundleError: links, devices, empty folders, or too many files.
        """
        self._path = path
        found = sorted(islice(_scan(path), MAX_FILES + MAX_UNLISTED + 1))
        if len(found) > MAX_FILES + MAX_UNLISTED:
            raise BundleError(f"{path}: expected at most {MAX_FILES} files")
        self.stats = {name: (path / name).stat() for name in found}
        self.sizes = {name: each.st_size for name, each in self.stats.items()}

    def read(self, name: str, max_bytes: int) -> bytes:
        """A file's bytes.

        Raises:
            BundleError: no such file, or larger than `max_bytes`.
        """
        if name not in self.sizes:
            raise BundleError(f"{self._path}: no {name} in it: expected a bundle's folder or zip")
        with self.open(name) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise BundleError(f"{name}: expected at most {max_bytes} bytes, found {self.sizes[name]}")
        return data

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file as a stream."""
        with (self._path / name).open("rb") as file:
            yield file

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def bundle_around(path: Path) -> Path | None:
    """The bundle's folder that a path lies in, or is; None: no bundle. What is written there would corrupt it."""
    place = path.resolve()
    return next((each for each in (place, *place.parents) if _is_bundle(each)), None)


def check_outside(place: Path) -> None:
    """Refuse a place for an output that lies in a bundle: another file would corrupt it.

    Raises:
        InputError: it does.
    """
    bundle = bundle_around(place)
    if bundle is not None:
        raise InputError(f"{place} lies in the bundle {bundle.name}, which it would corrupt: name a place outside")


def _is_bundle(folder: Path) -> bool:
    """Whether a folder has a manifest of ours: other programs have files of that name, too."""
    try:
        with (folder / MANIFEST_NAME).open("rb") as file:
            manifest = json.loads(file.read(MAX_MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and {"format_version", "files"} <= manifest.keys()


def _scan(folder: Path, prefix: str = "", depth: int = 1) -> Iterator[str]:
    """Names of all files below a folder; links, devices and empty folders are errors, not followed."""
    if depth > MAX_NAME_PARTS:
        raise BundleError(f"{shorten(prefix)}: more than {MAX_NAME_PARTS} folders deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                raise BundleError(f"{shorten(name)} is a symbolic link: a bundle holds plain files only")
            if entry.is_dir(follow_symlinks=False):
                inner = _scan(Path(entry.path), name + "/", depth + 1)
                first = next(inner, None)
                if first is None:
                    raise BundleError(f"{shorten(name)} is an empty folder that the manifest does not list")
                yield first
                yield from inner
            elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                if entry.name not in LEFT_BEHIND:
                    yield name
            else:
                raise BundleError(f"{shorten(name)} is not a plain file")


# Files that were never written.

LARGE_BYTES = 64 << 20
_MAX_HOLES = 10_000


def refuse_holes(paths: Iterable[Path]) -> None:
    """Refuse large files that are mostly holes: nothing was ever written there, and hashing their zeros takes minutes.

    Raises:
        BundleError: names the file.
    """
    for path in paths:
        size = path.stat().st_size
        if size >= LARGE_BYTES and hasattr(os, "SEEK_HOLE") and _data_bytes(path, size) < size // 2:
            raise BundleError(f"{path.name}: most of its {size} bytes were never written: copy or download it again")


def _data_bytes(path: Path, size: int) -> int:
    """How many bytes a file holds that were written; all, where the file system does not tell."""
    written = position = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(_MAX_HOLES):
            position = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, position, os.SEEK_HOLE)
            written += end - position
            position = end
            if position >= size:
                return written
    except OSError:  # ENXIO: no data behind the position; EINVAL: not known here
        return written if position else (0 if _ends_in_a_hole(descriptor) else size)
    finally:
        os.close(descriptor)
    return size


def _ends_in_a_hole(descriptor: int) -> bool:
    """Whether the file system finds a hole at the very beginning."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
    except OSError:
        return False
