"""Holds back what native libraries print to stderr while they open a model."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_SILENT = threading.Event()
_STDERR = 2


def stay_silent() -> None:
    """Say that this process's stderr leads nowhere for good: there is nothing to hold back, and no file to hold it."""
    _SILENT.set()


@contextmanager
def held_back() -> Iterator[None]:
    """Keep the process's stderr quiet inside the block; what was printed appears after all if the block fails.

    LiteRT logs some thirty lines for each model and has no switch for it. What other threads print in the meantime is
    held back too: the file descriptor is the process's.
    """
    if _SILENT.is_set():
        yield
        return
    with _LOCK, tempfile.TemporaryFile() as printed:
        sys.stderr.flush()
        saved = os.dup(_STDERR)
        try:
            os.dup2(printed.fileno(), _STDERR)
            try:
                yield
            finally:
                os.dup2(saved, _STDERR)
        except BaseException:
            printed.seek(0)
            os.write(_STDERR, printed.read())
            raise
        finally:
            os.close(saved)
