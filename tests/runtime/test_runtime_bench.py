"""Benchmarks: rows, turns, a process each, and contenders that fail."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeformer_runtime.bench import Contender, bench, bundle_contender
from edgeformer_runtime.bundle import pack
from edgeformer_runtime.errors import BundleError, EngineError, InputError


@pytest.fixture(autouse=True)
def factories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes find bench_factories.py."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


def contender(name: str, function: str, **arguments: object) -> Contender:
    return Contender(name, "none", "fp32", f"bench_factories:{function}", arguments, size_bytes=7)


def test_rows() -> None:
    rounds = []
    rows = bench(
        [contender("a", "sleeper", ms=4), contender("b", "sleeper", ms=12)],
        threads=3,
        rounds=4,
        progress=lambda done, total: rounds.append((done, total)),
    )
    first, second = (row.to_json() for row in rows)
    assert list(first) == [
        *("name", "engine", "precision", "threads", "latency_ms"),
        *("load_ms", "peak_rss_mb", "size_bytes", "ratio_to_first"),
    ]
    assert (first["name"], first["threads"], first["size_bytes"], first["ratio_to_first"]) == ("a", 3, 7, 1.0)
    assert 4 <= first["latency_ms"]["median"] <= first["latency_ms"]["p90"]
    assert second["ratio_to_first"] == pytest.approx(3, rel=0.3)
    assert rounds == [(1, 4), (2, 4), (3, 4), (4, 4)]
    json.dumps([first, second], allow_nan=False)


def test_memory_is_each_processes_own() -> None:
    ballast = bytearray(b"x" * (200 << 20))  # this process's memory is not theirs
    small, large = bench([contender("small", "memory", mib=1), contender("large", "memory", mib=100)], rounds=1)
    del ballast
    assert 5 < small.peak_rss_mb < 100
    assert large.peak_rss_mb - small.peak_rss_mb == pytest.approx(99, abs=20)


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
    with pytest.raises(InputError):
        bench([])


def test_bundles(tiny_onnx: Path) -> None:
    largest, shorter = bundle_contender(tiny_onnx), bundle_contender(tiny_onnx, "seq_8")
    assert (largest.name, largest.engine, largest.precision) == ("tiny.onnx.fp32", "onnx", "fp32")
    assert largest.arguments["program"] == "seq_16"
    assert largest.size_bytes == sum(file.stat().st_size for file in tiny_onnx.glob("*.onnx"))
    rows = bench([largest, shorter], rounds=2)
    assert all(0 < row.median_ms < 50 for row in rows)
    with pytest.raises(InputError, match="unknown program 'x'"):
        bundle_contender(tiny_onnx, "x")
    with pytest.raises(BundleError, match="no bundle"):
        bundle_contender(tiny_onnx / "nowhere")


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
    with pytest.raises(EngineError, match=r"^tiny: onnxruntime .* cannot open model.bin"):
        bench([bundle_contender(tiny)], rounds=1)
