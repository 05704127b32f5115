"""This process: its standard streams, whether or not somebody reads them, and how much memory it uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


def open_standard_streams() -> None:
    """Give the process the standard streams that it was started without.

    Their descriptors would else become those of its own files, and what libraries print would go into these.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def flush_stderr() -> None:
    """Write out what Python still holds, or lose it."""
    with stderr_may_be_unread():
        if sys.stderr is not None:
            sys.stderr.flush()


@contextmanager
def stderr_may_be_unread() -> Iterator[None]:
    """Go on where writing to stderr fails inside the block: its reader has gone, or its disk is full."""
    try:
        yield
    except (OSError, ValueError):
        # What Python still holds would fail again at the exit, whose code would then be 120.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class Stderr:
    """The process's stderr as it is when it is written to. Nobody who reads it is no reason for a run to fail."""

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with stderr_may_be_unread():
            if sys.stderr is not None:
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what is there."""
        flush_stderr()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return sys.stderr is not None and sys.stderr.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return 2 if sys.stderr is None else sys.stderr.fileno()

    @property
    def encoding(self) -> str:
        """How text becomes bytes."""
        return "utf-8" if sys.stderr is None else sys.stderr.encoding


# How much memory this process uses, and has used at most.


_STATUS = Path("/proc/self/status")


def peak_rss_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    On Linux a process inherits ru_maxrss from the one that started it, through fork and exec. Up to that much the file
    says it, which takes longer to read than many an answer's preprocessing.
    """
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    peak = _largest_rss()
    if sys.platform != "darwin" and peak <= _inherited(os.getpid()):
        return _status_bytes("VmHWM") or peak
    return peak


def _largest_rss() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def _inherited(process: int) -> int:  # noqa: ARG001 (a fork asks anew)
    """What `_largest_rss` gives for as long as this process has not needed more than the one that started it did."""
    peak, own = _largest_rss(), _status_bytes("VmHWM") if _STATUS.exists() else None
    return peak if own is not None and own < peak else 0


def private_bytes() -> int | None:
    """The resident memory of this process that no file backs, in bytes: heap, packed weights, the arena of activations.

    Weights that are read from a mapped file are not in it. None where the system does not tell (all but Linux).
    """
    return _status_bytes("RssAnon") if _STATUS.exists() else None


def _status_bytes(key: str) -> int | None:
    """A figure that Linux gives of this process, or None where its kernel does not have it."""
    found = [line for line in _STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(found[0].split()[1]) * 1024 if found else None


def give_back_memory() -> None:
    """Return to the system what the C library keeps of memory that has been freed: megabytes after a model was opened.

    Only glibc has a function for it.
    """
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
