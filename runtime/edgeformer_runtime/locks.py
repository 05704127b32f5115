"""Locks of files, which end with the process that holds them: so what a dead one left can be told from what is in use.

They are BSD's (flock), which belong to an open file and not to a process: two threads, too, keep one another out.
"""

from __future__ import annotations

import os
from pathlib import Path

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


def take(path: Path) -> Lock | None:
    """Lock a file, made where it is missing, against everybody else, and write this process's id into it.

    Args:
        path: the file, in a folder that is there.

    Returns:
        The lock; None: somebody else holds the file.

    Raises:
        OSError: it cannot be made or locked.
    """
    lock = _taken(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
