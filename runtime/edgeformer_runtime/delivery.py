"""Outputs that are there whole or not at all: made in a folder beside their place, put there in one step.

A run that is killed leaves its folder behind. The next one that writes beside it finds that nobody holds the folder's
lock, puts back what the dead run had moved away, and removes the rest.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer_runtime.interface import StrPath

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
    if not available():
        yield
        return
    file = place.with_name(f"{PREFIX}{place.name}{_LOCK_SUFFIX}")
    try:
        lock = take(file)
    except OSError as error:
        raise InputError(f"cannot write into {place.parent}: {error.strerror}") from None
    if lock is None:
        process = holder(file)
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


def check_names(*places: StrPath | None) -> None:
    """Refuse places of outputs whose names are no UTF-8, before anything is made: not every tool could open them.

    Raises:
        InputError: one is none.
    """
    for place in places:
        # Python stands for bytes that are no UTF-8 by lone surrogates.
        if place is not None and any("\ud800" <= letter <= "\udfff" for letter in os.fspath(place)):
            raise InputError(f"{place}: expected a path in UTF-8 for what is written: name another place")


def check_file(file: Path) -> None:
    """Refuse a place for a file where a folder is.

    Raises:
        InputError: there is one.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder: expected a file's name, as {file / 'NAME'}")


def check_folder(folder: Path) -> None:
    """Refuse a place for a folder where a file is, or under one.

    Raises:
        InputError: there is one.
    """
    for place in (folder, *folder.parents):
        if place.is_file():
            raise InputError(f"{place} is a file: expected a folder, or a name for a new one")


def clear_dead(parent: Path) -> None:
    """Put back what dead runs have moved away in a folder, and remove what else they left there."""
    if not available():
        return
    for left in parent.glob(f"{PREFIX}*"):
        # What other users left, or another run clears at this moment, is not ours to mend.
        with suppress(OSError):
            if left.is_symlink():
                continue
            folder = left.is_dir()
            if not folder and left.suffix != _LOCK_SUFFIX:
                continue
            lock = take(left / _LOCK if folder else left)
            if lock is not None and folder:
                _clear(left, parent)
                lock.close()
            elif lock is not None:
                lock.remove()


def remove(folder: Path) -> None:
    """Remove a folder, and what in it forbids that."""
    import shutil

    try:
        shutil.rmtree(folder)
    except PermissionError:
        for inner, _, _ in os.walk(folder):
            Path(inner).chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


def _claimed(parent: Path) -> tuple[Path, Lock | None]:
    """A new work folder and its lock, which a run that clears cannot have taken for a dead one's."""
    from tempfile import mkdtemp  # here, as who only opens bundles does without

    while True:
        work = Path(mkdtemp(prefix=PREFIX, dir=parent))
        try:
            lock = take(work / _LOCK) if available() else None
            if lock is not None or not available():
                (work / _NEW).mkdir()
                return work, lock
        except FileNotFoundError:
            continue
        except BaseException:  # a disk that is full
            with suppress(OSError):
                remove(work)
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


# Locks of files, which end with the process that holds them: so what a dead one left can be told from what is in use.
#
# They are BSD's (flock), which belong to an open file and not to a process: two threads, too, keep one another out.


try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

_MODE = 0o600


def available() -> bool:
    """Whether this system has them."""
    return fcntl is not None


class Lock:
    """A locked file, from `take`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def share(self) -> bool:
        """Let others share the file from now on; whether it is still there, as nobody holds it for a moment."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        return _is_at(self._descriptor, self._path)

    def alone(self) -> bool:
        """Keep others out from now on; False: somebody shares the file, and this one has let go of it."""
        return _lock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_at(self._descriptor, self._path)

    def sign(self) -> None:
        """Write this process's id into the file, for who finds it locked."""
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, b"%d\n" % os.getpid())

    def close(self) -> None:
        """Let go; the file stays."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Let go, and remove the file. Whoever waits for it finds that it is gone, and makes another one."""
        self._path.unlink(missing_ok=True)
        self.close()


def take(path: Path, wait: bool = False) -> Lock | None:
    """Lock a file, made where it is missing, against everybody else, and write this process's id into it.

    Args:
        path: the file, in a folder that is there.
        wait: until whoever holds it lets go.

    Returns:
        The lock; None: somebody else holds the file.

    Raises:
        OSError: it cannot be made or locked.
    """
    lock = _taken(path, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    if lock is not None:
        lock.sign()
    return lock


def join(path: Path) -> Lock:
    """Lock a file together with others, as soon as nobody has it alone.

    Raises:
        OSError: as of `take`.
    """
    lock = _taken(path, fcntl.LOCK_SH)
    assert lock is not None  # it has waited
    return lock


def holder(path: Path) -> int | None:
    """The id of the process that took a lock last, as far as it can be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _taken(path: Path, how: int) -> Lock | None:
    """None: others hold the file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, _MODE)
        try:
            if not _lock(descriptor, how):
                os.close(descriptor)
                return None
            if _is_at(descriptor, path):  # else its holder has removed it meanwhile
                return Lock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the name still belongs to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


# The cache of what can be made again.


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
