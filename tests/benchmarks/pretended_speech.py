"""A contender of the speech benchmark without a model, for tests."""

from __future__ import annotations

from benchmarks.speech_contenders import Hypothesis, Samples, Transcribe

WORDS = ("good", "morning", "and", "welcome", "to", "the", "mountain", "railway")


def parrot(threads: int, fail: bool = False) -> Transcribe:
    """One that always transcribes the same words, or fails."""
    assert threads == 1

    def transcribe(samples: Samples, max_tokens: int | None) -> Hypothesis:
        if fail:
            raise RuntimeError("no audio")
        assert len(samples) > 16000
        words = WORDS[:max_tokens]
        return Hypothesis(" ".join(words), len(words))

    return transcribe
