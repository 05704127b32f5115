"""Who runs when. A heavy contender leaves cold caches and a warm processor to whoever comes next."""

from __future__ import annotations


def turn_orders(contenders: int, rounds: int) -> list[tuple[int, ...]]:
    """The order of turns in each round, balanced for what one turn does to the next.

    These are the rows of a Williams design, repeated: over n rounds (2n where n is odd) every contender stands at every
    place equally often, and follows every other one equally often within a round. E. J. Williams, "Experimental designs
    balanced for the estimation of residual effects of treatments", Australian Journal of Scientific Research 2 (1949).

    Args:
        contenders: n, at least 1.
        rounds: how many orders are wanted.

    Returns:
        For each round a permutation of 0..n-1.
    """
    first = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(contenders)]
    rows = [tuple((index + shift) % contenders for index in first) for shift in range(contenders)]
    if contenders % 2:
        rows += [row[::-1] for row in rows]
    return [rows[index % len(rows)] for index in range(rounds)]
