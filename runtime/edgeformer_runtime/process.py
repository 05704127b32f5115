"""This process: its standard streams, what native libraries print there, and how much memory it uses."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TextIO

_STDERR = 2


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
def stderr_may_be_unread(descriptor: int = _STDERR) -> Iterator[None]:
    """Go on where writing to stderr fails inside the block: its reader has gone, or its disk is full.

    Args:
        descriptor: stderr's own, or a duplicate of it.
    """
    try:
        yield
    except (OSError, ValueError):
        # What Python still holds would fail again at the exit, whose code would then be 120.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


class Stderr:
    """The process's stderr as it is when it is written to. Nobody who reads it is no reason for a run to fail."""

    def __init__(self, duplicate: bool = False) -> None:
        """`duplicate`: write to where stderr leads now, whatever `held_back` does to it, until `close`."""
        self._descriptor = os.dup(_STDERR) if duplicate else _STDERR
        self._duplicate = os.fdopen(self._descriptor, "w", encoding="utf-8") if duplicate else None

    @property
    def _file(self) -> TextIO | None:
        return self._duplicate or sys.stderr

    def write(self, text: str) -> int:
        """Write, or lose the text."""
        with stderr_may_be_unread(self._descriptor):
            if self._file is not None:
                self._file.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose what is there."""
        with stderr_may_be_unread(self._descriptor):
            if self._file is not None:
                self._file.flush()

    def close(self) -> None:
        """Close the duplicate; stderr itself stays open."""
        self.flush()
        if self._duplicate is not None:
            self._duplicate.close()

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._file is not None and self._file.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor if self._file is None else self._file.fileno()

    @property
    def encoding(self) -> str:
        """How text becomes bytes."""
        return "utf-8" if self._file is None else self._file.encoding


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


# What native libraries print to stderr while they open a model.


_LOCK = threading.Lock()
_SILENT = threading.Event()


def stay_silent() -> None:
    """Say that this process's stderr leads nowhere for good: there is nothing to hold back, and no file to hold it."""
    _SILENT.set()


@contextmanager
def held_back(shown_on_failure: bool = True) -> Iterator[None]:
    """Keep the process's stderr quiet inside the block; what was printed appears after all if the block fails.

    LiteRT logs some thirty lines for each model and has no switch for it. What other threads print in the meantime is
    held back too: the file descriptor is the process's. Rust's reports of a panic say nothing that the exception does
    not: they are not shown.

    Args:
        shown_on_failure: whether what was printed appears if the block fails.
    """
    if _SILENT.is_set():
        yield
        return
    with _LOCK, _memory_file() as printed:
        flush_stderr()
        saved = os.dup(_STDERR)
        try:
            os.dup2(printed.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
        except BaseException:
            if shown_on_failure:
                printed.seek(0)
                with suppress(OSError):  # nobody reads it any more
                    os.write(_STDERR, printed.read())
            raise
        finally:
            os.close(saved)


def _memory_file() -> IO[bytes]:
    """A file that nobody else sees, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("edgeformer-stderr"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()


def silence_destructors() -> None:
    """Close stderr when the process has left Python, before native destructors run that were registered so far.

    LiteRT's log as they run, and have no switch for it. All that Python has to say has been said by then. Where the C
    library has no such hook, as on Windows, they are transcribed.
    """
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        close = ctypes.cast(library.close, ctypes.c_void_p)
        # int __cxa_atexit(void (*f)(void *), void *argument, void *library), of the C++ ABI.
        library.__cxa_atexit(close, ctypes.c_void_p(_STDERR), None)
