"""Ctrl-C that foreign code cannot swallow: some of the export tools catch everything, and went on for a minute."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType

REPEAT_SECONDS = 0.05
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Those count for which Python has a handler: SIGINT, and the others where the command line turns them into Ctrl-C."""


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
