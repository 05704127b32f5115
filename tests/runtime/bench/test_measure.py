"""Benchmarks: rows, turns, a process each, and contenders that fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_bundle import TinyEngine

from edgeformer_runtime.bench import measure as measure_module
from edgeformer_runtime.bench.contender import Cell, Contender, Sweep, bundle_cells, bundle_contender
from edgeformer_runtime.bench.measure import Child, Turn, measure_cells, turn_orders
from edgeformer_runtime.bench.report import Row, from_json, to_json
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.errors import BundleError, EngineError, InputError


@pytest.fixture(autouse=True)
def factories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes find bench_factories.py."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def contender(name: str, function: str, **arguments: object) -> Contender:
    return Contender(name, "none", "fp32", f"bench_factories:{function}", arguments, size_bytes=7)


def bench(contenders: Sequence[Contender], threads: int = 1, rounds: int = 1) -> tuple[Row, ...]:
    return measure_cells([Cell(tuple(contenders), threads)], rounds).rows


def test_a_report() -> None:
    rounds = []
    cell = Cell((contender("a", "sleeper", ms=4), contender("b", "sleeper", ms=12)), threads=3)
    report = measure_cells([cell, cell], 6, lambda done, total: rounds.append((done, total)))
    first, second, third, _ = report.rows
    assert (first.name, first.threads, first.size_bytes, first.ratio_to_first) == ("a", 3, 7, 1.0)
    assert first.ratio_interval is None and third.ratio_to_first == 1.0  # each cell has a first contender
    assert 4 <= first.latency_ms.median <= first.latency_ms.p90
    assert first.cpu_ms is not None and first.cpu_ms.median < first.latency_ms.median  # it sleeps
    assert second.ratio_interval is not None
    low, high = second.ratio_interval
    assert low <= second.ratio_to_first <= high
    assert rounds == [(done, 12) for done in range(1, 13)]
    assert any("a, b waited for the processor" in note for note in report.notes)
    assert report.versions["edgeformer-runtime"] and report.device.cores >= 1
    assert from_json(json.loads(json.dumps(to_json([report]), allow_nan=False)), "it") == [report]


def test_few_rounds_claim_no_interval() -> None:
    rows = bench([contender("a", "sleeper", ms=1), contender("b", "sleeper", ms=1)], rounds=2)
    assert all(row.latency_ms.median_interval is None and row.ratio_interval is None for row in rows)


def test_turns_follow_the_design(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    class Noted(Child):
        def turn(self) -> Turn:
            taken.append(self._contender.name)
            return super().turn()

    monkeypatch.setattr(measure_module, "Child", Noted)
    bench([contender(name, "sleeper", ms=1) for name in "abc"], rounds=6)
    assert taken == ["abc"[index] for order in turn_orders(3, 6) for index in order]


class Joules:
    """A meter that sees 2 W at rest and 10 W otherwise."""

    name = "pretended"

    def __init__(self) -> None:
        self.watts = [2.0, 10.0]

    def watts_during(self, action: Callable[[], object]) -> float:
        action()
        return self.watts.pop(0)


def test_energy_is_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure_module, "find_meter", lambda: Joules())
    monkeypatch.setattr(measure_module, "BUSY_SECONDS", 0.1)
    (row,) = bench([contender("a", "sleeper", ms=5)])
    assert row.energy is not None
    assert (row.energy.meter, row.energy.watts, row.energy.idle_watts) == ("pretended", 10, 2)
    assert row.energy.joules_per_run >= 0.04  # 10 W for at least 5 ms, but for the last run's part


def test_memory_is_each_processes_own() -> None:
    ballast = bytearray(b"x" * (200 << 20))  # this process's memory is not theirs
    small, large = bench([contender("small", "memory", mib=1), contender("large", "memory", mib=100)], rounds=1)
    del ballast
    assert small.peak_rss_mb is not None and large.peak_rss_mb is not None
    assert 5 < small.peak_rss_mb < 100
    assert large.peak_rss_mb - small.peak_rss_mb == pytest.approx(99, abs=20)
    assert small.private_mb is not None and large.private_mb is not None
    assert large.private_mb - small.private_mb == pytest.approx(99, abs=20)


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("load", r"^bad: ValueError: no\\nmodel$"),
        ("run", "^bad: RuntimeError: no output$"),
        ("die", "^bad: its process ended with SIGSEGV, it printed last: last words$"),
    ],
)
def test_a_contender_that_fails(how: str, problem: str) -> None:
    with pytest.raises(EngineError, match=problem):
        bench([contender("good", "sleeper", ms=1), contender("bad", "broken", how=how)], rounds=1)


def test_unknown_factory() -> None:
    with pytest.raises(EngineError, match="bad: AttributeError"):
        bench([contender("bad", "nothing")], rounds=1)


def test_nothing_to_measure() -> None:
    with pytest.raises(InputError, match="at least one bundle"):
        bench([])
    with pytest.raises(InputError, match="one round"):
        bench([contender("a", "sleeper", ms=1)], rounds=0)
    with pytest.raises(InputError, match="1024 threads, found 0"):
        bench([contender("a", "sleeper", ms=1)], threads=0)


def test_bundles(tiny_onnx: Path) -> None:
    largest, shorter = bundle_contender(tiny_onnx), bundle_contender(tiny_onnx, "seq_8")
    assert (largest.name, largest.engine, largest.precision) == ("tiny.onnx.fp32", "onnx", "fp32")
    assert largest.arguments["program"] == "seq_16"
    assert largest.size_bytes == sum(file.stat().st_size for file in tiny_onnx.glob("*.onnx"))
    rows = bench([largest, shorter], rounds=2)
    assert all(0 < row.latency_ms.median < 50 for row in rows)
    assert (
        rows[0].program == "seq_16"
        and rows[0].bundle_sha256 == sha256((tiny_onnx / "manifest.json").read_bytes()).hexdigest()
    )
    with pytest.raises(InputError, match="unknown program 'x'"):
        bundle_contender(tiny_onnx, "x")
    with pytest.raises(BundleError, match="no bundle"):
        bundle_contender(tiny_onnx / "nowhere")


def test_a_sweep(tiny_onnx: Path) -> None:
    cells = bundle_cells([tiny_onnx, tiny_onnx], Sweep((1, 2), (1, 3), ("all",)))
    found = [(cell.contenders[1].program, cell.contenders[1].batch, cell.threads) for cell in cells]
    assert found == [(name, batch, threads) for name in ("seq_8", "seq_16") for batch in (1, 3) for threads in (1, 2)]
    (row,) = measure_cells([Cell(cells[2].contenders[:1])], 1).rows
    assert (row.program, row.batch, row.threads) == ("seq_8", 3, 1)
    for wrong in (Sweep(threads=(0,)), Sweep(programs=("seq_9",))):
        with pytest.raises(InputError):
            bundle_cells([tiny_onnx], wrong)
    for batches in ((), (0,), (2000,)):
        with pytest.raises(InputError, match="batches of 1 to 1024"):
            Sweep(batches=batches)
    with pytest.raises(InputError, match="at least one bundle"):
        bundle_cells([], Sweep())


def test_nothing_is_left_of_a_zip(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tiny_onnx, tmp_path / "tiny.zip")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    bench([bundle_contender(tmp_path / "tiny.zip")], rounds=1)
    with pytest.raises(EngineError):
        bench([bundle_contender(tmp_path / "tiny.zip"), contender("bad", "broken", how="run")], rounds=1)
    assert not list(temporary.glob("edgeformer-*"))  # ONNX Runtime leaves a file of its own


def test_a_bundle_whose_model_cannot_be_opened(tiny: Path) -> None:
    with pytest.raises(EngineError, match=r"^tiny: model.bin: the model has a field of number 0"):
        bench([bundle_contender(tiny)], rounds=1)


@pytest.mark.parametrize(("seconds_a_run", "runs"), [(0.001, 18), (0.5, 7)])
def test_quick_latencies_of_slow_workloads_end_early(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, seconds_a_run: float, runs: int
) -> None:
    clock, ran = [0.0], []

    def run() -> None:
        ran.append(clock[0])
        clock[0] += seconds_a_run

    def bound(*_: object) -> Callable[[], None]:
        return run

    monkeypatch.setattr(measure_module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure_module, "open_engine", lambda *_, **__: TinyEngine())
    monkeypatch.setattr(measure_module, "workload", lambda _: SimpleNamespace(bind=bound))
    with Bundle.open(tiny) as bundle, Bundle.open(tiny) as other:
        latencies = measure_module.median_latencies_ms([bundle, other])
    assert latencies == pytest.approx([1e3 * seconds_a_run] * 2)
    assert len(ran) == 2 * runs
