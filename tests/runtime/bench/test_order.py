"""Fair orders of turns."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from edgeformer_runtime.bench.measure import turn_orders


@pytest.mark.parametrize("contenders", [1, 2, 3, 4, 5, 8, 17])
def test_everybody_stands_everywhere_and_follows_everybody_equally_often(contenders: int) -> None:
    rounds = contenders * (2 if contenders % 2 else 1)
    orders = turn_orders(contenders, rounds)
    assert len(orders) == rounds and all(sorted(order) == list(range(contenders)) for order in orders)
    places = Counter((place, index) for order in orders for place, index in enumerate(order))
    assert len(places) == contenders**2 and set(places.values()) == {rounds // contenders}
    neighbours = Counter(pair for order in orders for pair in pairwise(order))
    assert len(neighbours) == contenders * (contenders - 1)
    assert len(set(neighbours.values())) <= 1


def test_orders_repeat() -> None:
    assert turn_orders(2, 5) == [(0, 1), (1, 0), (0, 1), (1, 0), (0, 1)]
