"""Factories that the benchmark's processes call."""

from __future__ import annotations

import os
import signal
import time

from edgeformer_runtime.bench.contender import Run


def sleeper(ms: float, threads: int) -> Run:
    """Something that takes its time."""
    print("noise on stdout")
    assert os.environ["OMP_NUM_THREADS"] == str(threads)
    return lambda: time.sleep(ms / 1e3)


def memory(mib: int, threads: int) -> Run:  # noqa: ARG001
    """Something that holds memory."""
    held = b"x" * (mib << 20)
    return lambda: time.sleep(1e-3 if held else 0)


def broken(how: str, threads: int) -> Run:  # noqa: ARG001
    """Something that fails: while it loads, while it runs, or by dying."""
    if how == "load":
        raise ValueError("no\nmodel")
    if how == "die":
        os.write(2, b"first\nlast words\n")
        os.kill(os.getpid(), signal.SIGSEGV)

    def run() -> None:
        raise RuntimeError("no output")

    return run
