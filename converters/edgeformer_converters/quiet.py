"""Export tools print progress, warnings and C++ logs; this holds them back without hiding an error."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from edgeformer.interrupts import insistent_interrupts
from edgeformer_runtime.process import flush_stderr

KEPT_CHARACTERS = 4000


@contextmanager
def quiet_tools() -> Iterator[None]:
    """Hold back what is printed inside the block, from Python and from C++.

    An exception leaves the block as it is, with the end of the held-back output as a note, so that `--debug` shows it.
    The file descriptors are the process's: a progress display that goes on inside must write to a duplicate of them.
    """
    with tempfile.TemporaryFile() as native, StringIO() as text:
        saved = [(fd, os.dup(fd)) for fd in (1, 2)]
        sys.stdout.flush()
        flush_stderr()
        disabled = logging.root.manager.disable
        try:
            for fd, _ in saved:
                os.dup2(native.fileno(), fd)
            logging.disable(logging.WARNING)
            with redirect_stdout(text), redirect_stderr(text), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with insistent_interrupts():
                    yield
        except Exception as error:
            native.seek(0)
            printed = text.getvalue() + native.read().decode(errors="replace")
            error.add_note(f"the tool printed last:\n{printed[-KEPT_CHARACTERS:]}")
            raise
        finally:
            logging.disable(disabled)
            for fd, copy in saved:
                os.dup2(copy, fd)
                os.close(copy)
