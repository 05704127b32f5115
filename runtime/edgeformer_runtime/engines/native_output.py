"""Holds back what native libraries print to stderr while they open a model."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from edgeformer_runtime.process import flush_stderr

_LOCK = threading.Lock()
_SILENT = threading.Event()
_STDERR = 2


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
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        close = ctypes.cast(library.close, ctypes.c_void_p)
        # int __cxa_atexit(void (*f)(void *), void *argument, void *library), of the C++ ABI.
        library.__cxa_atexit(close, ctypes.c_void_p(_STDERR), None)
