"""The runtime's rules, search and cutting of sound against decoding.json and silence.json."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.search import loop_period
from edgeformer_runtime.decoding.segments import Span, Spans, cut_at_skipped, fit_to_pauses
from edgeformer_runtime.decoding.tokenizer import join_texts
from edgeformer_runtime.preprocess.silence import PauseOptions, speech_ranges
from tests.golden.golden_files import FOLDER
from tests.golden.make_decoding import play
from tests.golden.make_silence import samples_of

GOLDEN = json.loads((FOLDER / "decoding.json").read_text(encoding="utf-8"))
RULES = [case for case in GOLDEN["cases"] if case["kind"] == "rules"]
WINDOWS = [case for case in GOLDEN["cases"] if case["kind"] == "window"]
SKIPPED = [case for case in GOLDEN["cases"] if case["kind"] == "skipped"]
LOOPS = [case for case in GOLDEN["cases"] if case["kind"] == "loop"]
TIMES = [case for case in GOLDEN["cases"] if case["kind"] == "times"]
JOINED = [case for case in GOLDEN["cases"] if case["kind"] == "join"]
SILENCE = json.loads((FOLDER / "silence.json").read_text(encoding="utf-8"))


def spec_of(multilingual: bool) -> Transcription:
    tokens = GOLDEN["multilingual_tokens"] if multilingual else GOLDEN["transcription"]["tokens"]
    return strict_json.from_data(Transcription, GOLDEN["transcription"] | {"tokens": tokens}, "decoding.json")


@pytest.mark.parametrize("case", RULES, ids=range(len(RULES)))
def test_rules_as_in_transformers(case: dict[str, Any]) -> None:
    rules = LogitRules(spec_of(False), case["timestamps"])
    logits = np.array(case["logits"], np.float32)
    rules.apply(logits, case["said"])
    allowed = [token for first, last in case["allowed"] for token in range(first, last + 1)]
    assert np.flatnonzero(np.isfinite(logits)).tolist() == allowed
    assert int(logits.argmax()) == case["token"]
    largest = float(logits.max())
    assert largest - rules.log_normalizer(logits, largest) == pytest.approx(case["log_probability"], abs=1e-4)


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: case["name"])
def test_window(case: dict[str, Any]) -> None:
    found = play(case, spec_of(case["multilingual"]), GOLDEN["tokenizer"])
    expected = case["expected"]
    exact = ("prompt", "tokens", "text", "segments", "resume", "looped", "silent", "doubtful")
    assert {key: found[key] for key in exact} == {key: expected[key] for key in exact}


@pytest.mark.parametrize("case", SKIPPED, ids=range(len(SKIPPED)))
def test_skipped_sentences(case: dict[str, Any]) -> None:
    spans = Spans(tuple(Span(start, end, ()) for start, end in case["times"]), None)
    found = cut_at_skipped(spans, case["letters"], [(begin, end) for begin, end in case["sounding"]])
    assert [[span.start, span.end] for span in found.segments] == case["cut"]
    assert found.resume == case["resume"]


@pytest.mark.parametrize("case", LOOPS, ids=range(len(LOOPS)))
def test_loops(case: dict[str, Any]) -> None:
    assert loop_period(case["said"], case["stretches"]) == case["period"]


@pytest.mark.parametrize("case", TIMES, ids=lambda case: case["name"])
def test_times_that_fit_to_pauses(case: dict[str, Any]) -> None:
    spans = [Span(start, end, ()) for start, end in case["times"]]
    found = fit_to_pauses(spans, [(begin, end) for begin, end in case["sounding"]])
    assert [[span.start, span.end] for span in found] == case["fitted"]


@pytest.mark.parametrize("case", JOINED, ids=lambda case: case["joined"])
def test_joined_texts(case: dict[str, Any]) -> None:
    assert join_texts(case["texts"]) == case["joined"]


@pytest.mark.parametrize("index", range(len(SILENCE["cases"])), ids=lambda index: SILENCE["cases"][index]["name"])
def test_pauses(index: int) -> None:
    levels = load_file(FOLDER / "silence.safetensors")[f"{index}/samples"]
    samples = samples_of(levels, SILENCE["cases"][index]["gain"])
    for pauses in SILENCE["cases"][index]["pauses"]:
        options = PauseOptions(pauses["min_pause_seconds"], pauses["margin_seconds"])
        found = speech_ranges(samples, SILENCE["sample_rate"], options)
        assert [list(pair) for pair in found] == pauses["ranges"]
