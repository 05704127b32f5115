"""Export tools kept in hand: an interrupt that one swallows ends it all the same, and leaves what was there before."""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from edgeformer.foreign_code import insistent_interrupts, quiet_tools, rare_collections


def swallow(times: int) -> None:
    """As tools with a bare except do, so often."""
    for turn in range(times):
        try:
            if turn == 0:
                signal.raise_signal(signal.SIGINT)
            time.sleep(30)
        except BaseException:
            pass


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """A run in the background of a shell has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("guard", [insistent_interrupts, quiet_tools])
def test_a_swallowed_interrupt_comes_again(guard) -> None:
    before = signal.getsignal(signal.SIGINT)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), guard():
        swallow(3)
        time.sleep(30)
    assert time.monotonic() - begin < 20
    assert signal.getsignal(signal.SIGINT) is before


def test_a_request_to_end_is_as_insistent() -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(KeyboardInterrupt), insistent_interrupts():
            try:
                signal.raise_signal(signal.SIGTERM)
            except BaseException:
                time.sleep(30)
            time.sleep(30)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupt_that_became_an_error_or_nothing_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), insistent_interrupts():
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            raise ValueError("the tool's own words") from None
    with pytest.raises(KeyboardInterrupt), insistent_interrupts():
        swallow(1)


def test_nothing_changes_without_one() -> None:
    before, threads = signal.getsignal(signal.SIGINT), threading.active_count()
    with insistent_interrupts():
        pass
    with pytest.raises(ZeroDivisionError), insistent_interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before
    for _ in range(100):
        if threading.active_count() <= threads:
            break
        time.sleep(0.01)
    assert threading.active_count() <= threads


def test_other_threads_may_use_it() -> None:
    done = []

    def work() -> None:
        with insistent_interrupts():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def test_full_collections_are_rare_inside_and_as_before_outside() -> None:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        with pytest.raises(KeyError), rare_collections():
            assert gc.get_threshold() == (700, 10, 100)
            raise KeyError
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*before)
