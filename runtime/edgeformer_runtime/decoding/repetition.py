"""Loops: a decoder that has lost the audio says the same again and again (Radford et al. 2022, section 4.5)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

LONGEST_PERIOD = 40
REPEATS = 4
"""A loop is text that stands there so often in a row; refrains of songs rarely do."""
SHORTEST_LOOP = 16
"""Tokens that a loop has at least: "no no no no no" is said."""


def loop_period(tokens: Sequence[int], stretches: int = 0) -> int:
    """The period of the loop that the tokens end with, 0 if there is none.

    Costs a comparison per possible period where there is none, so that a decoder can ask after each token.

    Args:
        tokens: of text.
        stretches: of audio between pauses. Who says the same again and again pauses in between, so text that stands
            there no more often than that is no loop.
    """
    count = len(tokens)
    for period in range(1, min(LONGEST_PERIOD, count // REPEATS) + 1):
        if tokens[-1] != tokens[-1 - period]:
            continue
        needed = max(SHORTEST_LOOP, period * max(REPEATS, stretches + 1))
        if needed <= count and all(tokens[-i] == tokens[-i - period] for i in range(1, needed - period + 1)):
            return period
    return 0


PHRASE, TIMES = 5, 3
"""Tokens of a phrase, and how often it is said, by which a sampled text is doubted."""


def repeats_phrase(tokens: Sequence[int]) -> bool:
    """Whether a phrase of `PHRASE` tokens stands there `TIMES` times, wherever.

    Too little for a loop, and people say such things, but so does a model that is told another language than the one
    that is spoken: Whisper base, in float32 and with the whole window, gives English that is to be German as "was für
    ein Country du kannst" three times, at a good probability.
    """
    phrases = Counter(tuple(tokens[index : index + PHRASE]) for index in range(len(tokens) - PHRASE + 1))
    return any(count >= TIMES for count in phrases.values())


def compression_ratio(text: str) -> float:
    """Bytes of the text for each byte of its zlib stream; 0 for empty text. High values are repetitive."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))
