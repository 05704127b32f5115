"""Intervals for another run's ratios, and the comparison with the stored ones."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import check
from benchmarks.bundle_measure import repeated
from benchmarks.intervals import LEAST_WIDTH, center, prediction_interval
from benchmarks.tables import REPOSITORY, _model
from edgeformer_runtime.bench.device import Device, State
from edgeformer_runtime.bench.report import CONFIDENCE, Quantiles, Report, Row

ROW = Row(
    name="model.litert.fp32", engine="litert", precision="fp32", program="seq_32", threads=1, batch=1,
    size_bytes=4_000_000, bundle_sha256=None, cpu_ms=None, latency_ms=Quantiles(10.0, 11.0, 20, None, None),
    load_ms=5.0, peak_rss_mb=50.0,
    private_mb=None, arena_mb=None, energy=None, ratio_to_first=1.0, ratio_interval=None,
)  # fmt: skip


def report(ratio: float) -> Report:
    device, state = Device(None, None, "x86_64", 2, None, "Linux", None), State({}, (), None, ())
    peer = replace(
        ROW, name="torch", engine="torch", ratio_to_first=ratio, latency_ms=replace(ROW.latency_ms, median=10 * ratio)
    )
    return Report("local", device, {}, state, state, 20, CONFIDENCE, (ROW, peer), ())


def results(*ratios: float) -> dict[str, Any]:
    return {"models": [{"title": "M", "rows": repeated([report(ratio) for ratio in ratios])}]}


def test_another_run_falls_into_the_interval() -> None:
    """As often as it is stated, of runs that are drawn from one distribution wider than the least interval."""
    logarithms = np.random.default_rng(0).normal(0.5, 0.08, size=(4000, 2, 5))
    inside = 0
    for stored, new in np.exp(logarithms):
        interval = prediction_interval(stored.tolist())
        assert interval is not None
        inside += interval[0] <= center(new.tolist()) <= interval[1]
    assert inside / 4000 == pytest.approx(0.99, abs=0.006)


def test_equal_repeats_still_leave_room() -> None:
    interval = prediction_interval([2.0] * 5)
    assert interval == pytest.approx((2 / (1 + LEAST_WIDTH), 2 * (1 + LEAST_WIDTH)))
    assert prediction_interval([2.0]) is None


def test_repeats_become_a_row() -> None:
    first, peer = results(2.0, 2.2, 1.8, 2.0, 2.1)["models"][0]["rows"]
    assert first["ratio_interval"] is None and first["ratio_to_first"] == 1.0
    assert peer["latency_ms"] == {"median": 20.0, "p90": 11.0, "runs": 100}
    low, high = peer["ratio_interval"]
    assert low < 1.8 and high > 2.2
    bundle = {"target": "litert", "precision": "fp32", "size_bytes": 1, "verification": {"stages": [
        {"max_abs": 0.0, "cosine": 1.0}] * 3}}  # fmt: skip
    text = _model({"title": "M", "bundles": [bundle], "rows": [first, peer]})
    assert f"| peer: torch | fp32 | 4.0 MB |  |  | 20.00 ms | 2.02 ({low:.2f} to {high:.2f}) |" in text


def test_inside_and_outside() -> None:
    stored = results(2.0, 2.0, 2.0)
    (same,) = check.compare(stored, results(2.05, 2.05, 2.05))
    assert same.inside and (same.model, same.row) == ("M", "torch fp32") and same.stated == pytest.approx(2.0)
    (other,) = check.compare(stored, results(2.3, 2.3, 2.3))
    assert not other.inside
    (missing,) = check.compare(stored, {"models": []})
    assert missing.found is None and not missing.inside


def test_speech_is_compared_by_its_reference_clip() -> None:
    row = {"name": "EdgeFormer litert", "engine": "litert", "precision": "int8"}
    stored = {"model": "tiny", "rows": [row | {"reference_clip_ratio": 0.3, "ratio_interval": [0.25, 0.35]}]}
    (found,) = check.compare(stored, {"model": "tiny", "rows": [row | {"reference_clip_ratio": 0.31}]})
    assert found.inside and found.row == "EdgeFormer litert int8"


@pytest.mark.parametrize(("ratio", "code"), [(2.0, 0), (3.0, 1)])
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, code: int) -> None:
    (tmp_path / "text.json").write_text(json.dumps(results(2.0, 2.01, 2.02)))
    (tmp_path / "new.json").write_text(json.dumps(results(ratio, ratio, ratio)))
    monkeypatch.setattr(check, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", "text", "--new", str(tmp_path / "new.json")])
    assert check.main() == code


def test_results_without_intervals_are_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.json").write_text(json.dumps(results(2.0)))
    monkeypatch.setattr(check, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", "text"])
    assert check.main() == 2


@pytest.mark.slow
def test_help() -> None:
    for script in ("check", "text_peers", "vision_peers"):
        command = [sys.executable, "-m", f"benchmarks.{script}", "--help"]
        assert subprocess.run(command, capture_output=True, cwd=REPOSITORY).returncode == 0
