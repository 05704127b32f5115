"""A contender of the speech benchmark without a model, for tests."""

from __future__ import annotations

from benchmarks.speech_contenders import Heard, Samples, Transcribe

WORDS = ("good", "morning", "and", "welcome", "to", "the", "mountain", "railway")


def parrot(threads: int, fail: bool = False) -> Transcribe:
    """One that always hears the same words, or fails."""
    assert threads == 1

    def transcribe(samples: Samples, max_tokens: int | None) -> Heard:
        if fail:
            raise RuntimeError("no sound")
        assert len(samples) > 16000
        words = WORDS[:max_tokens]
        return Heard(" ".join(words), len(words))

    return transcribe
