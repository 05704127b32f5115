"""Word errors: small cases by hand, recorded counts of a real model, and Whisper's own normaliser."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeformer.evaluate.speech import WordErrors, count_word_errors, simple_words, total, whisper_english_words
from edgeformer_runtime.errors import InputError


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        ("", "", 0, 0),
        ("one two three", "one two three", 0, 3),
        ("One, two; three.", "one two THREE!", 0, 3),
        ("one two three", "one three", 1, 3),
        ("one three", "one two three", 1, 2),
        ("one two three", "one too three", 1, 3),
        ("one two three", "", 3, 3),
        ("", "thank you", 2, 0),
        ("a b c d", "b c d a", 2, 4),
        ("it's his", "its his", 1, 2),
        ("well-known", "well known", 0, 2),
        ("größer, naïve", "GRÖSSER naïve", 1, 2),
    ],
)
def test_counts(said: str, heard: str, errors: int, words: int) -> None:
    assert count_word_errors(said, heard, simple_words) == WordErrors(errors, words)


def test_rates() -> None:
    assert WordErrors(1, 4).rate == 0.25
    assert WordErrors(3, 2).rate == 1.5
    assert WordErrors(2, 0).rate == 2.0
    assert total([WordErrors(1, 10), WordErrors(0, 0), WordErrors(2, 2)]) == WordErrors(3, 12)
    assert total([]).rate == 0


def test_recorded_counts_of_every_clip(assets: Path) -> None:
    clips = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())["clips"]
    assert len(clips) == 21
    for words, key in ((simple_words, "err_simple"), (whisper_english_words(), "err_whisper_norm")):
        found = [count_word_errors(clip["ref"], clip["hyp"], words) for clip in clips]
        assert [[one.errors, one.words] for one in found] == [clip[key] for clip in clips]


def test_the_normaliser_is_the_reference_one(assets: Path) -> None:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    reference = EnglishTextNormalizer(json.loads((assets / "whisper-tiny.en" / "normalizer.json").read_text()))
    words = whisper_english_words()
    texts = [json.loads(line)["text"] for line in (assets / "speech" / "manifest.jsonl").read_text().splitlines()]
    texts += [
        "I can't pay $20 million, said Mr. Smith at 5:30 p.m.",
        "colour [noise] (laughs) hmm the 21st of May 1984",
    ]
    for text in texts:
        assert words(text) == reference(text).split()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(InputError, match=r"pip install 'edgeformer\[speech\]'"):
        whisper_english_words()
