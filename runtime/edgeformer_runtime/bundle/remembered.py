"""Which bundles this user has loaded before, so that their files need not be hashed again while they are the same ones.

A note lies in the user's cache for each folder of a bundle that was loaded whole: every file hashed, every model file
looked through, by this very code. It holds each file's size, inode, and times of change. Whoever writes to a file moves
its ctime, which no program can set back, so a bundle with a note is as it was when it was hashed. Three things are not
seen, and are why a note counts for a week only, and for `load` alone: a disk that loses bits; a program that had mapped
the file before and writes there within seconds; and file systems without such times.

Notes are made and believed on POSIX systems only, and only where nobody else can write to them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from edgeformer_runtime import __version__
from edgeformer_runtime.delivery import cache_folder, make_private, who_can_replace
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer_runtime.model_files.refusal import Rows

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
