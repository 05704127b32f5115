"""Some seconds of the load test: good clients beside all attackers, while the bundle is reloaded, lose nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from edgeformer_runtime import load

pytest.importorskip("httpx")

from benchmarks.serve_load import JSON, Question, Scenario, run

pytestmark = pytest.mark.slow


def test_no_good_answer_is_lost_or_wrong(tiny_onnx: Path) -> None:
    texts = ("hello", "turn the lights off", "on", "")
    with load(tiny_onnx) as pipeline:
        expected = [pipeline.run(text) for text in texts]
    questions = [
        Question(json.dumps({"text": text}).encode(), JSON, 200, {"scores": list(result.scores)})
        for text, result in zip(texts, expected, strict=True)
    ]
    questions += [Question(b"{", JSON, 400), Question(b'{"text": 1}', JSON, 422), Question(b"a", "text/plain", 415)]
    scenario = Scenario("attacked", tiny_onnx, tuple(questions), 20, 8, ("--max-body-mb", "16"), attacked=True)
    outcome = asyncio.run(run(scenario))
    assert outcome.wrong == []
    assert not outcome.unanswered
    assert len(outcome.latencies) > 20
    assert outcome.attempts["silent"] >= 300
    assert outcome.told["giant head 431"]
    assert outcome.told["rebound 421"]
