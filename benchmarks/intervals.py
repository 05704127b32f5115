"""The interval in which another run of a benchmark finds a ratio again, from the repeats of one run.

A repeat starts every process anew: where memory and code come to lie changes times by more than the rounds of one
process show (T. Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!", ASPLOS 2009), so what
is repeated is the process (T. Kalibera and R. Jones, "Rigorous benchmarking in reasonable time", ISMM 2013).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.99
LEAST_REPEATS = 3
"""Of two, Student's t would make intervals that go from nothing to everything."""
LEAST_WIDTH = 0.1
"""Of the ratio, to each side. Another day's machine, its neighbours and its memory, is in no repeat of today's: within
an hour one of 16 ratios moved by 5.5 %, between days some moved by 9 %."""

# Student's t, its quantile 0.995, for 1 to 9 degrees of freedom; with more it is smaller.
_T = (63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250)


def center(ratios: Sequence[float]) -> float:
    """The ratio that a run states: the geometric mean of its repeats."""
    return statistics.geometric_mean(ratios)


def prediction_interval(ratios: Sequence[float]) -> tuple[float, float] | None:
    """Where the `center` of another run with as many repeats falls, with `CONFIDENCE`.

    Logarithms of ratios are taken as normal; see N. R. Draper and H. Smith, "Applied Regression Analysis" (1998), on
    the interval for the mean of further observations.

    Args:
        ratios: of each repeat, positive.

    Returns:
        Low and high end; None for fewer than `LEAST_REPEATS`, of which the spread is a guess.
    """
    count = len(ratios)
    if count < LEAST_REPEATS:
        return None
    logarithms = [math.log(ratio) for ratio in ratios]
    spread = _T[min(count - 1, len(_T)) - 1] * statistics.stdev(logarithms) * math.sqrt(2 / count)
    half = max(spread, math.log1p(LEAST_WIDTH))
    middle = statistics.mean(logarithms)
    return math.exp(middle - half), math.exp(middle + half)


def span(interval: Sequence[float] | None) -> str:
    """An interval as it stands behind its ratio; nothing where there is none."""
    return f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
