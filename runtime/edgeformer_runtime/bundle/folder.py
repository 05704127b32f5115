"""The files of a bundle's folder: plain files only, found without following links; and which were checked before."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING
from zlib import crc32

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from edgeformer_runtime.bundle.strict_json import MAX_NAME_PARTS, shorten
from edgeformer_runtime.delivery import cache_folder, make_private, who_can_replace
from edgeformer_runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from edgeformer_runtime.model_files import Rows

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


# Which bundles this user has loaded before, so that their files need not be hashed again while they are the same
# ones.
#
# A note lies in the user's cache for each folder of a bundle that was loaded whole: every file hashed, every model
# file looked through, by this very code. It holds each file's size, inode, and times of change. Whoever writes to a
# file moves its ctime, which no program can set back, so a bundle with a note is as it was when it was hashed. Three
# things are not seen, and are why a note counts for a week only, and for `load` alone: a disk that loses bits; a
# program that had mapped the file before and writes there within seconds; and file systems without such times.
#
# Notes are made and believed on POSIX systems only, and only where nobody else can write to them.


VALID_S = 7 * 24 * 3600
"""A note that is older does not count."""
SETTLED_S = 2.0
"""A file that changed later than this before it was hashed may change again without another time: clocks are coarse."""
MAX_NOTES = 200
_MAX_BYTES = 4 << 20
_CHECKS = ("bundle", "model_files", "preprocess", "tasks")
"""The folders of the code whose word a note passes on."""

State = dict[str, list[int]]
"""By each file's name its size, inode, mtime and ctime in nanoseconds."""


def state_of(stats: Mapping[str, os.stat_result]) -> State:
    """What tells the files of a folder from any that come later."""
    return {name: [each.st_size, each.st_ino, each.st_mtime_ns, each.st_ctime_ns] for name, each in stats.items()}


def rows_of(folder: Path, state: State) -> Rows | None:
    """What `check_model_files` found of these very files; None: no note says that they were checked."""
    if os.name != "posix":
        return None
    with suppress(OSError, ValueError, RecursionError, InputError):
        path = _place(folder)
        with path.open("rb") as file:
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
            noted = json.loads(file.read(_MAX_BYTES))
        rows: Rows | None = noted.get("rows") if isinstance(noted, dict) else None
        if 0 <= age_s <= VALID_S and noted == _note(state, rows) and who_can_replace(path) is None:
            return rows
    return None


def remember(folder: Path, state: State, rows: Rows, checked_from_s: float) -> None:
    """Note that the files were checked; where that cannot be, the next `load` checks them again.

    Args:
        folder: the bundle's.
        state: of its files before they were checked.
        rows: what `check_model_files` found.
        checked_from_s: when that was, as `time.time` has it.
    """
    last_change_ns = max(max(times) for _, _, *times in state.values())
    if os.name != "posix" or last_change_ns > (checked_from_s - SETTLED_S) * 1e9:
        return
    with suppress(OSError, InputError):
        path = _place(folder)
        make_private(path.parent)
        if who_can_replace(path.parent) is not None:
            return
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(_note(state, rows)), encoding="utf-8")
        fresh.replace(path)
        for old in _oldest(path.parent):
            old.unlink()


def _place(folder: Path) -> Path:
    """Where the note of a folder is: by what the folder is, whatever it is called."""
    found = folder.stat()
    return cache_folder() / "checked" / f"{found.st_dev:x}-{found.st_ino:x}.json"


def _note(state: State, rows: Rows | None) -> dict[str, object]:
    checksum = crc32(json.dumps(rows, sort_keys=True).encode())  # what was damaged may still be JSON, with other rows
    return {"code": [__version__, *_code()], "files": state, "rows": rows, "crc32": checksum}


def _code() -> Iterator[int]:
    """The times of the modules that check, so that nothing of an older or edited version is believed."""
    package = Path(__file__).parents[1]
    for name in _CHECKS:
        with os.scandir(package / name) as entries:
            yield max((entry.stat().st_mtime_ns for entry in entries if entry.name.endswith(".py")), default=0)


def _oldest(folder: Path) -> list[Path]:
    """The notes beyond the newest ones: their bundles are mostly gone."""
    notes = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    return notes[:-MAX_NOTES]
