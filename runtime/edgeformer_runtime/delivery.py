"""Outputs that are there whole or not at all: made in a folder beside their place, put there in one step.

A run that is killed leaves its folder behind. The next one that writes beside it finds that nobody holds the folder's
lock, puts back what the dead run had moved away, and removes the rest.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeformer_runtime import locks
from edgeformer_runtime.errors import InputError

PREFIX = ".edgeformer-"
_LOCK_SUFFIX = ".lock"
_LOCK, _NEW, _OLD = "lock", "new", "old"

# linux/fs.h and fcntl.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@contextmanager
def work_folder(parent: Path, create: bool = False) -> Iterator[Path]:
    """An empty folder inside `parent`, on the same file system. It goes whatever happens.

    Args:
        parent: where outputs are to appear. What dead runs left there is cleared.
        create: make it and the folders above it; those that end up empty go again.

    Raises:
        InputError: `parent` cannot be written to.
    """
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()] if create else []
    try:
        if create:
            parent.mkdir(parents=True, exist_ok=True)
        clear_dead(parent)
        work, lock = _claimed(parent)
    except OSError as error:
        raise InputError(f"cannot write into {parent}: {error.strerror}") from None
    try:
        yield work / _NEW
    finally:
        _clear(work, parent)
        if lock is not None:
            lock.close()
        with suppress(OSError):  # another run has written there meanwhile
            for folder in missing:
                folder.rmdir()


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Keep every other run of ours from writing an output.

    Args:
        place: where it is to appear, in a folder that is there.

    Raises:
        InputError: another run is writing it, or the folder cannot be written to.
    """
    if not locks.available():
        yield
        return
    file = place.with_name(f"{PREFIX}{place.name}{_LOCK_SUFFIX}")
    try:
        lock = locks.take(file)
    except OSError as error:
        raise InputError(f"cannot write into {place.parent}: {error.strerror}") from None
    if lock is None:
        process = locks.holder(file)
        who = "another run" if process is None else f"another run (process {process})"
        raise InputError(f"{place}: {who} is writing it: wait until that has ended, or name another place")
    try:
        yield
    finally:
        lock.remove()


def put(made: Path, place: Path) -> None:
    """Move what was made to its place in one step; whatever was there goes with the work folder.

    Nobody ever finds the place empty or half written, and what a running app has mapped stays as it was.

    Args:
        made: a file or folder directly in a work folder.
        place: a file or folder, or nothing yet, beside that work folder.
    """
    if not os.path.lexists(place):
        made.rename(place)
    elif not made.is_dir() and not place.is_dir():
        made.replace(place)
    elif not _exchange(made, place):
        # Two steps where a system knows no exchange: a run that dies between them is made good by the next.
        old = made.parent.parent / _OLD
        old.mkdir(exist_ok=True)
        place.rename(old / place.name)
        made.rename(place)


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path to write a file to, which takes the place of `file` when the block ends well.

    Raises:
        InputError: the folder of `file` cannot be written to, or `file` is a folder, whose content would be lost.
    """
    place = file.resolve()  # a link stays one, and its target is replaced
    check_file(file)
    with work_folder(place.parent) as work:
        yield work / place.name
        put(work / place.name, place)


def check_names(*places: Path | None) -> None:
    """Refuse places of outputs whose names are no UTF-8, before anything is made: not every tool could open them.

    Raises:
        InputError: one is none.
    """
    for place in places:
        # Python stands for bytes that are no UTF-8 by lone surrogates.
        if place is not None and any("\ud800" <= letter <= "\udfff" for letter in str(place)):
            raise InputError(f"{place}: expected a path in UTF-8 for what is written: name another place")


def check_file(file: Path) -> None:
    """Refuse a place for a file where a folder is.

    Raises:
        InputError: there is one.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder: expected a file's name, as {file / 'NAME'}")


def clear_dead(parent: Path) -> None:
    """Put back what dead runs have moved away in a folder, and remove what else they left there."""
    if not locks.available():
        return
    for left in parent.glob(f"{PREFIX}*"):
        # What other users left, or another run clears at this moment, is not ours to mend.
        with suppress(OSError):
            if left.is_symlink():
                continue
            folder = left.is_dir()
            if not folder and left.suffix != _LOCK_SUFFIX:
                continue
            lock = locks.take(left / _LOCK if folder else left)
            if lock is not None and folder:
                _clear(left, parent)
                lock.close()
            elif lock is not None:
                lock.remove()


def remove(folder: Path) -> None:
    """Remove a folder, and what in it forbids that."""
    try:
        shutil.rmtree(folder)
    except PermissionError:
        for inner, _, _ in os.walk(folder):
            Path(inner).chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


def _claimed(parent: Path) -> tuple[Path, locks.Lock | None]:
    """A new work folder and its lock, which a run that clears cannot have taken for a dead one's."""
    while True:
        work = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = locks.take(work / _LOCK) if locks.available() else None
            if lock is not None or not locks.available():
                (work / _NEW).mkdir()
                return work, lock
        except FileNotFoundError:
            continue
        except BaseException:  # a disk that is full
            shutil.rmtree(work, ignore_errors=True)
            raise


def _clear(work: Path, parent: Path) -> None:
    if (work / _OLD).is_dir():
        for old in (work / _OLD).iterdir():
            if not os.path.lexists(parent / old.name):
                old.rename(parent / old.name)
    remove(work)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step (renameat2); False: the system, or this file system, has no such step."""
    import ctypes  # here, as who only opens bundles does without

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))
