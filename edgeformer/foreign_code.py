"""Export tools kept in hand: Ctrl-C that they cannot swallow, and their output held back without hiding an error.

Some of them catch everything, and went on for a minute after Ctrl-C. They print progress, warnings and C++ logs.
"""

from __future__ import annotations

import _thread
import gc
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from queue import SimpleQueue
from types import FrameType

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.process import flush_stderr

_OPERATOR = re.compile(r"\b(?:aten|prims|torch\.ops)(?:::|\.)[\w.]+")
"""How export tools write operators of torch."""

REPEAT_SECONDS = 0.05
FULL_COLLECTION_EVERY = 100
"""Collections of the middle generation; Python's own number is 10."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those count for which Python has a handler: SIGINT, and the others where the command line turns them into Ctrl-C."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Inside the block, full garbage collections are rare.

    Export tools keep hundreds of thousands of objects alive and make as many: at the usual rate, going through them
    takes an eighth of a conversion's time.
    """
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], max(before[2], FULL_COLLECTION_EVERY))
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def insistent_interrupts() -> Iterator[None]:
    """Inside the block, an interrupt is raised again and again until it leaves the block.

    Whatever the block made of it, the block ends with KeyboardInterrupt. Clean up outside: what stands inside a
    `finally` of the block may be interrupted once more. Outside the main thread, which alone sees signals, this does
    nothing.
    """
    before = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread() or not before:
        yield
        return
    came: SimpleQueue[int | None] = SimpleQueue()
    left = threading.Event()
    is_wanted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_wanted
        if not is_wanted:
            is_wanted = True
            came.put(number)
        # Not in this file's own frames: the block has been left, or is not yet entered.
        if not left.is_set() and (frame is None or frame.f_code.co_filename != __file__):
            before[number](number, frame)

    threading.Thread(target=_repeat, args=(came, left), daemon=True).start()
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        left.set()
        came.put(None)
        for number, handler in before.items():
            signal.signal(number, handler)
        if is_wanted:
            raise KeyboardInterrupt


def _repeat(came: SimpleQueue[int | None], left: threading.Event) -> None:
    number = came.get()
    while number is not None and not left.wait(REPEAT_SECONDS):
        if hasattr(signal, "pthread_kill"):  # wakes the main thread where it sleeps; Windows has none
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        else:
            _thread.interrupt_main(signal.Signals(number))


# The output of tools.

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


@contextmanager
def told_of_tools(target: str, adapted: str | None) -> Iterator[None]:
    """One line, with the operator if it is named, for what a tool says of a module that nobody wrote for export.

    Args:
        target: whose tool it is.
        adapted: `Family.adapted`; None: the module is ours, and an error is a fault here.
    """
    try:
        yield
    except EdgeFormerError:
        raise
    except Exception as error:
        if adapted is None:
            raise
        said = " ".join(str(error).split())
        operator = _OPERATOR.search(said)
        why = f"the operator {operator.group()}" if operator else shorten(said, 160)
        raise InputError(f"{target} cannot lower a {adapted}: {why}") from error
