"""From times of single runs to medians, 90th percentiles and ratios, each with an interval.

Runs of one turn resemble each other: the machine was warm or cold, busy or free for all of them. So what is drawn again
for an interval is whole rounds, and a ratio compares turns of the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, ...]
"""Its low and its high end."""

CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Even the whole range of five rounds holds the median with a probability of 1 - 2 / 2^5 = 0.94 only."""

RESAMPLES = 1000
_SEED = 0
_CHUNK_VALUES = 1 << 21

P90 = 0.9


@dataclass(frozen=True)
class Quantiles:
    """Times of single runs, in ms.

    Attributes:
        median: of all runs.
        p90: nine of ten runs take no longer (nearest rank).
        runs: how many there were.
        median_interval: low and high end at `CONFIDENCE`; None: fewer than `LEAST_ROUNDS` rounds.
        p90_interval: likewise.
    """

    median: float
    p90: float
    runs: int
    median_interval: Interval | None
    p90_interval: Interval | None


def quantiles(rounds: Sequence[Sequence[float]]) -> Quantiles:
    """Median and p90 of all runs.

    Args:
        rounds: ms of the runs of each round's turn, equally many in each.
    """
    times = np.array(rounds, dtype=np.float64)
    return Quantiles(
        median=float(_median(times)),
        p90=float(_p90(times)),
        runs=times.size,
        median_interval=bootstrap(times, _median),
        p90_interval=bootstrap(times, _p90),
    )


def ratio(rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> tuple[float, Interval | None]:
    """How much longer a contender takes than another one: the median over rounds of the ratio of the turns' medians.

    Args:
        rounds: ms of the runs of each round's turn.
        reference: the other contender's, of the same rounds.

    Returns:
        The ratio and its interval at `CONFIDENCE`.
    """
    own, other = (np.median(np.array(times, dtype=np.float64), axis=1) for times in (rounds, reference))
    ratios = (own / other)[:, None]
    return float(_median(ratios)), bootstrap(ratios, _median)


def bootstrap(rounds: Floats, statistic: Callable[[Floats], Floats]) -> Interval | None:
    """The interval in which a statistic falls when rounds are drawn again, with replacement.

    The percentile interval of B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, with
    rounds as clusters. It speaks of this run alone: of its processes, this machine and this hour.

    Args:
        rounds: shape (rounds, runs).
        statistic: of shape (..., rounds, runs) to shape (...).

    Returns:
        Low and high end at `CONFIDENCE`; None for fewer than `LEAST_ROUNDS` rounds.
    """
    count = len(rounds)
    if count < LEAST_ROUNDS:
        return None
    draws = np.random.default_rng(_SEED).integers(count, size=(RESAMPLES, count))
    chunks = np.array_split(draws, -(-RESAMPLES * rounds.size // _CHUNK_VALUES))
    found = np.concatenate([statistic(rounds[chunk]) for chunk in chunks])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _median(rounds: Floats) -> Floats:
    return cast(Floats, np.median(rounds, axis=(-2, -1)))


def _p90(rounds: Floats) -> Floats:
    return cast(Floats, np.quantile(rounds, P90, axis=(-2, -1), method="inverted_cdf"))
