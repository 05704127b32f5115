"""Loops: a decoder that has lost the audio says the same again and again (Radford et al. 2022, section 4.5)."""

from __future__ import annotations

import zlib
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


def compression_ratio(text: str) -> float:
    """Bytes of the text for each byte of its zlib stream; 0 for empty text. High values are repetitive."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))
