"""Private copies of bundles: one for all who have the same bundle open, gone when the last of them closes it.

They lie in a folder of the user's own in the folder for temporary files, by the hash of the manifest and its signature.
A lock tells who still uses one, so what a killed process left goes when the next bundle is opened. Systems without such
locks (Windows) have a copy for each.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeformer_runtime import delivery
from edgeformer_runtime.delivery import remove
from edgeformer_runtime.errors import BundleError

_LOCK_SUFFIX = ".lock"
_UNFINISHED_SUFFIX = ".unfinished"


class Copy:
    """A private folder that holds a bundle's files until `close`."""

    def __init__(self, folder: Path, lock: delivery.Lock | None) -> None:
        """Use `open_copy`."""
        self.folder = folder
        self._lock = lock
        self._process = os.getpid()

    def close(self) -> None:
        """Remove the folder, unless somebody else uses it. A process that was forked off has nothing to close."""
        if self._process != os.getpid():
            return
        if self._lock is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self._lock.alone():
            shutil.rmtree(self.folder, ignore_errors=True)
            self._lock.remove()
            _remove_empty(self.folder.parent)
        else:
            self._lock.close()


def open_copy(key: str, needed_bytes: int, fill: Callable[[Path], None], check: Callable[[], None]) -> Copy:
    """The copy of that key, made if nobody has it open.

    Args:
        key: the same for the same files only.
        needed_bytes: what a new copy takes.
        fill: writes a new copy into an empty folder, and checks what it writes.
        check: called in place of `fill` where the copy is there: the source must hold what it says all the same.

    Raises:
        BundleError: no space, or the folder for copies is not this user's alone; or what `fill` and `check` raise.
    """
    if not delivery.available():
        return Copy(_filled(Path(tempfile.mkdtemp(prefix="edgeformer-")), needed_bytes, fill), None)
    while True:
        home = _home()
        _clear_dead(home)
        try:
            copy = _first(home / key, needed_bytes, fill) or _joined(home / key, check)
        except FileNotFoundError:  # the last user of another copy has removed the folder of copies meanwhile
            continue
        if copy is not None:
            return copy


def _first(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> Copy | None:
    """A new copy; None: others have one, or make it."""
    lock = delivery.take(_lock_of(folder))
    if lock is None:
        return None
    try:
        _make(folder, needed_bytes, fill)
    except BaseException:
        lock.remove()
        _remove_empty(folder.parent)
        raise
    if lock.share() and folder.is_dir():
        return Copy(folder, lock)
    lock.close()  # in the moment between both locks somebody took it for a dead one's
    return None


def _joined(folder: Path, check: Callable[[], None]) -> Copy | None:
    """The copy that others have open, when it is complete; None: they have not got that far."""
    lock = delivery.join(_lock_of(folder))
    copy = Copy(folder, lock)
    try:
        if folder.is_dir():
            check()
            return copy
    except BaseException:
        copy.close()
        raise
    copy.close()
    return None


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK_SUFFIX)


def _make(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> None:
    """A folder appears under its name when it is complete."""
    unfinished = folder.with_name(folder.name + _UNFINISHED_SUFFIX)
    for left in (folder, unfinished):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _filled(unfinished, needed_bytes, fill).rename(folder)


def _filled(folder: Path, needed_bytes: int, fill: Callable[[Path], None]) -> Path:
    try:
        free = shutil.disk_usage(folder).free
        if needed_bytes > free:
            raise BundleError(
                f"not enough space in {folder.parent}: {needed_bytes >> 20} MiB are needed, {free >> 20} MiB are free: "
                "make room, or set TMPDIR"
            )
        fill(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _home() -> Path:
    """This user's folder for copies, which nobody else may look into.

    Raises:
        BundleError: somebody else has taken its name.
    """
    home = Path(tempfile.gettempdir()) / f"edgeformer-{os.getuid()}"
    with suppress(FileExistsError):
        home.mkdir(mode=0o700)
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BundleError(
            f"{home}: expected a folder of this user alone, for copies of bundles: remove it, or set TMPDIR"
        )
    return home


def _clear_dead(home: Path) -> None:
    """Remove the copies that nobody uses: their processes were killed."""
    for file in home.glob(f"*{_LOCK_SUFFIX}"):
        with suppress(OSError):
            lock = delivery.take(file)
            if lock is None:
                continue
            copy = file.with_suffix("")
            for folder in (copy, copy.with_name(copy.name + _UNFINISHED_SUFFIX)):
                if folder.is_dir():
                    remove(folder)
            lock.remove()


def _remove_empty(home: Path) -> None:
    with suppress(OSError):
        home.rmdir()
