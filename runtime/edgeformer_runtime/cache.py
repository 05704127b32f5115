"""Where this user's cache lies, and whether what lies there is this user's alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgeformer_runtime.errors import InputError


def cache_folder() -> Path:
    """`edgeformer` in the folder that the environment names for caches; it need not exist.

    A relative XDG_CACHE_HOME is not honoured, as its specification says: it would be another folder in each directory,
    and somebody else's in some.

    Raises:
        InputError: the environment names neither a cache nor a home.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME") or "")
    if stated.is_absolute():
        return stated / "edgeformer"
    try:
        home = Path.home()
    except RuntimeError:
        raise InputError("there is no home folder for a cache: set XDG_CACHE_HOME to an absolute path") from None
    if not home.is_absolute():
        raise InputError(f"the home folder {home} is no absolute path: set HOME, or XDG_CACHE_HOME")
    return home / ".cache" / "edgeformer"


def make_private(folder: Path) -> None:
    """Make a folder of the cache, and what is missing above it, for this user alone."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)


def who_can_replace(path: Path) -> str | None:
    """What lets another user replace a file or a folder before it is used, None where nothing does.

    Everything on the way to it counts, with and without following symbolic links: who can write to a folder can put
    another one in the place of what it holds. A sticky folder, such as /tmp, lets nobody do that to others' files.
    """
    if os.name != "posix":
        return None  # Windows keeps a user's folders private by their access lists
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow the links that are to be seen
    resolved = path.resolve()
    for each in dict.fromkeys((absolute, *absolute.parents, resolved, *resolved.parents)):
        found = each.lstat()
        if found.st_uid not in (0, os.geteuid()):
            return f"{each} belongs to another user"
        open_to_others = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode)
        if open_to_others and (each in (absolute, resolved) or not found.st_mode & stat.S_ISVTX):
            return f"others can write to {each}"
    return None
