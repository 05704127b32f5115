"""Measures contenders on one input: each in a process of its own, taking turns, so that none gets a quieter machine."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.strict_json import shorten

Run = Callable[[], object]
Progress = Callable[[int, int], None]
"""Called with the number of finished rounds and of all rounds."""

# Read by BLAS and OpenMP when they are loaded, so they have to be there before the process starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

STOP_SECONDS = 10

WORKER = "edgeformer_runtime.bench_worker"
"""The module whose `main` is a contender's process."""


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes:
        name: the row's name.
        engine: what executes it.
        precision: of its weights.
        factory: "module:function"; `function(**arguments, threads=N)` loads the model and returns a callable without
            arguments that runs it once. It is called in a fresh process.
        arguments: JSON values.
        size_bytes: the size of the model's files.
    """

    name: str
    engine: str
    precision: str
    factory: str
    arguments: dict[str, Any]
    size_bytes: int


@dataclass(frozen=True)
class Row:
    """What was measured of a contender: wall-clock times of single runs, and the peak memory of its whole process."""

    contender: Contender
    threads: int
    median_ms: float
    p90_ms: float
    load_ms: float
    peak_rss_mb: float
    ratio_to_first: float

    def to_json(self) -> dict[str, Any]:
        """The row as `bench --json` prints it; `peak_rss_mb` is in MiB."""
        return {
            "name": self.contender.name,
            "engine": self.contender.engine,
            "precision": self.contender.precision,
            "threads": self.threads,
            "latency_ms": {"median": round(self.median_ms, 4), "p90": round(self.p90_ms, 4)},
            "load_ms": round(self.load_ms, 2),
            "peak_rss_mb": round(self.peak_rss_mb, 2),
            "size_bytes": self.contender.size_bytes,
            "ratio_to_first": round(self.ratio_to_first, 4),
        }


def bench(
    contenders: Sequence[Contender], threads: int = 1, rounds: int = 30, progress: Progress | None = None
) -> list[Row]:
    """Measure contenders against each other.

    Args:
        contenders: the first is what the others' ratios refer to.
        threads: how many threads each may use.
        rounds: how many turns each gets; in a turn it runs for some 20 ms, at least once.
        progress: called after each round.

    Raises:
        EngineError: a contender failed to load or to run; the message names it.
        InputError: there are no contenders or no rounds.
    """
    if not contenders or rounds < 1 or threads < 1:
        raise InputError("expected at least one bundle, one round and one thread to measure")
    with ExitStack() as stack:
        children = [stack.enter_context(Child(contender, threads)) for contender in contenders]
        # One after the other: two models that load at once would slow each other down.
        loads = [child.load() for child in children]
        times: list[list[float]] = [[] for _ in children]
        for finished in range(rounds):
            for child, samples in zip(children, times, strict=True):
                samples += child.turn()
            if progress is not None:
                progress(finished + 1, rounds)
        peaks = [child.finish() for child in children]
    medians = [statistics.median(samples) for samples in times]
    return [
        Row(
            contender=contender,
            threads=threads,
            median_ms=median,
            p90_ms=_percentile(samples, 0.9),
            load_ms=load,
            peak_rss_mb=peak / (1 << 20),
            ratio_to_first=median / medians[0],
        )
        for contender, median, samples, load, peak in zip(contenders, medians, times, loads, peaks, strict=True)
    ]


def bundle_contender(
    path: str | Path, program: str | None = None, require_signature: str | Path | None = None
) -> Contender:
    """A bundle as a contender, with the `workload` of all programs or of one.

    Args:
        path: the bundle's folder or zip.
        program: the program that runs; None: the largest.
        require_signature: the PEM file of the key that must have signed it; None: any bundle is taken.

    Raises:
        BundleError: it is no bundle, is not signed as required, or has no vectors.
        InputError: it has no such program.
    """
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.workload import workload

    with Bundle.open(path, require_signature) as bundle:
        chosen = workload(bundle, program)
        manifest = bundle.manifest
        return Contender(
            name=Path(path).resolve().name,
            engine=manifest.target,
            precision=manifest.precision,
            factory="edgeformer_runtime.bench:bundle_run",
            arguments={
                "path": str(path),
                "program": chosen.program,
                # The other process opens the bundle anew, so it checks the signature anew.
                "require_signature": None if require_signature is None else str(require_signature),
            },
            size_bytes=bundle.model_size_bytes,
        )


def bundle_run(path: str, program: str, threads: int, require_signature: str | None = None) -> Run:
    """The factory of `bundle_contender`: the engine alone, on recorded inputs, or of speech from mel to text."""
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.workload import workload

    bundle = Bundle.open(path, require_signature)
    call = workload(bundle, program).bind(bundle, open_engine(bundle, threads))

    def run() -> object:
        return call()

    # Lives as long as the callable does: a zip's temporary folder goes with the bundle.
    run.bundle = bundle  # type: ignore[attr-defined]
    return run


class Child:
    """A contender's process. It answers one JSON line for each line that it is sent; see bench_worker.py."""

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
        factory = {"factory": self._contender.factory, "arguments": self._contender.arguments}
        return float(self.ask({"load": {**factory, "threads": self._threads}})["load_ms"])

    def turn(self) -> list[float]:
        """Times of one turn's runs, in ms."""
        return [float(time) for time in self.ask({"turn": {}})["times_ms"]]

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


def _percentile(samples: Sequence[float], fraction: float) -> float:
    """The smallest sample that at least this fraction of samples does not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -(-len(ordered) * fraction // 1)  # rounded up
    return ordered[max(0, int(rank) - 1)]
