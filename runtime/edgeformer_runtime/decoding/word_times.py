"""Words with their times: punctuation joined to its neighbours, and no word longer than people speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.decoding.tokenizer import TextPiece

OPENING = "\"'“¿([{-"
"""Punctuation that belongs to the word behind it."""
CLOSING = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
"""Punctuation that belongs to the word before it."""
SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001

LONGEST_TYPICAL_SECONDS = 0.7
"""What a window's median word counts as at most. No word at a pause lasts longer than twice the median."""


@dataclass(frozen=True)
class TimedWord:
    """A word with its spaces, from `start` to `end` seconds of its window; `probability` is the mean of its tokens'."""

    text: str
    start: float
    end: float
    probability: float


def timed_words(
    pieces: Sequence[TextPiece], starts: NDArray[np.float64], probabilities: Sequence[float]
) -> list[TimedWord]:
    """Words with the times of their tokens.

    Args:
        pieces: from `SpeechTokenizer.words`, N tokens in all.
        starts: (N + 1,) when each token begins, and when what follows the last one does, in seconds.
        probabilities: of the N tokens.
    """
    words = []
    first = 0
    for piece in pieces:
        end = first + len(piece.tokens)
        probability = sum(probabilities[first:end]) / len(piece.tokens)
        words.append(TimedWord(piece.text, float(starts[first]), float(starts[end]), probability))
        first = end
    return words


def trim_to_sound(words: Sequence[TimedWord], sounding: Sequence[tuple[float, float]]) -> list[TimedWord]:
    """Words without the pauses that they begin or end with.

    The path of an alignment gives all of the sound to some token, so that a pause belongs to one of its neighbours.

    Args:
        words: in order.
        sounding: (begin, end) in seconds, in order: the sound between its pauses. A word outside all of them stays.
    """
    trimmed = []
    for word in words:
        # A word lies in one stretch; a little of the next one may be an alignment that is not exact.
        overlaps = [(min(word.end, end) - max(word.start, begin), begin, end) for begin, end in sounding]
        overlap, begin, end = max(overlaps, default=(0.0, 0.0, 0.0))
        if overlap > 0:
            word = replace(word, start=max(word.start, begin), end=min(word.end, end))
        trimmed.append(word)
    return trimmed


def clip_long_words(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words at pauses that are no silence (breath, noise) at most twice as long as the median word.

    A first word and one behind a sentence's end lose their begin, and the punctuation of a sentence's end its end.
    """
    lengths = [word.end - word.start for word in words if word.end > word.start]
    if not lengths:
        return list(words)
    longest = 2 * min(LONGEST_TYPICAL_SECONDS, float(np.median(lengths)))
    clipped = list(words)
    for index, word in enumerate(words):
        if word.end - word.start <= longest:
            continue
        if word.text.strip() in SENTENCE_ENDS:
            clipped[index] = replace(word, end=word.start + longest)
        elif index == 0 or words[index - 1].text.strip() in SENTENCE_ENDS:
            clipped[index] = replace(word, start=word.end - longest)
    return clipped


def join_punctuation(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words with the punctuation around them; of a word's times, those of its text proper count."""
    joined: list[TimedWord] = []
    opening: TimedWord | None = None
    for word in words:
        mark = word.text.strip()
        if opening is not None:
            word = replace(word, text=opening.text + word.text)
            opening = None
        if mark and mark in OPENING and word.text.startswith(" "):
            opening = word
        elif joined and word.text == mark and mark and all(character in CLOSING for character in mark):
            joined[-1] = replace(joined[-1], text=joined[-1].text + word.text)
        else:
            joined.append(word)
    return joined if opening is None else [*joined, opening]
