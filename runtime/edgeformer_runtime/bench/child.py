"""A contender's process, as the one who measures sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import EngineError

# Read by BLAS and OpenMP when they are loaded, so they have to be there before the process starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

STOP_SECONDS = 10

WORKER = "edgeformer_runtime.bench.worker"
"""The module whose `main` is a contender's process."""


@dataclass(frozen=True)
class Load:
    """What it took to get ready: ms of the factory's call, and by how many bytes the private memory grew up to the end
    of the warm-up (None where the system does not tell)."""

    load_ms: float
    private_bytes: int | None


@dataclass(frozen=True)
class Turn:
    """Single runs of a turn: ms of wall clock, and ms of processor time of all threads."""

    wall_ms: list[float]
    cpu_ms: list[float]


class Child:
    """A contender's process. It answers one JSON line for each line that it is sent; see bench/worker.py."""

    def __init__(self, contender: Contender, threads: int, worker: str = WORKER) -> None:
        """Start the process; `worker` is the module whose `main` answers."""
        self._contender = contender
        self._threads = threads
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {worker} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
            encoding="utf-8",
        )

    def load(self) -> float:
        """Load the model and warm it up; returns how long the factory took, in ms."""
        return self.prepare().load_ms

    def prepare(self) -> Load:
        """Load the model and warm it up."""
        factory = {"factory": self._contender.factory, "arguments": self._contender.arguments}
        answer = self.ask({"load": {**factory, "threads": self._threads}})
        return Load(float(answer["load_ms"]), answer.get("private_bytes"))

    def turn(self) -> Turn:
        """One turn's runs."""
        answer = self.ask({"turn": {}})
        return Turn(answer["wall_ms"], answer["cpu_ms"])

    def keep_busy(self, seconds: float) -> int:
        """Run without a pause for so long; how many runs that were."""
        return int(self.ask({"keep_busy": {"seconds": seconds}})["runs"])

    def finish(self) -> float:
        """The process's peak memory in bytes."""
        return float(self.ask({"finish": {}})["peak_rss_bytes"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send {"name of a question": {its arguments}} and wait for the answer.

        Raises:
            EngineError: the contender failed or its process died; the message names it.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"{self._contender.name}: {self._death()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self._contender.name}: {answer['error']}")
        return answer

    def _death(self) -> str:
        """Why the process is gone: its exit status and the last line that it printed."""
        status = self._process.wait()
        reason = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
        self._stderr.seek(0)
        printed = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f", it printed last: {shorten(printed[-1], 200)[1:-1]}" if printed else ""
        return f"its process ended with {reason}{last}"

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its input ends the process, which then removes what it unpacked; only one that hangs is killed.
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # what was left to flush has no reader
            self._process.stdin.close()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
