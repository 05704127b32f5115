"""Block outputs are found among all values, in any layout, in order; nothing else is taken for them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.verify.layers import match_blocks

RANDOM = np.random.default_rng(0)


def tensor(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_any_order_of_the_axes() -> None:
    block = tensor(1, 3, 4, 5)
    noise = [tensor(60), tensor(61), tensor(4, 15)]
    for axes in ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2)):
        value = block.transpose(axes).reshape(-1, 5 if axes[-1] == 3 else 3)
        match = match_blocks({"a": block}, [*noise, value], 1e-4)["a"]
        assert match is not None
        assert (match.distance, match.max_abs, match.place) == (0, 0, 3)
        assert match.cosine == pytest.approx(1)


def test_the_distance_is_relative() -> None:
    block = tensor(1, 6, 8)
    match = match_blocks({"a": block}, [block * np.float32(1.25)], 0.3)["a"]
    assert match is not None
    assert match.distance == pytest.approx(0.25)
    assert match.max_abs == pytest.approx(0.25 * np.abs(block).max())


def test_blocks_are_found_one_behind_the_other() -> None:
    """A value of the block before is none of the next, however close it is."""
    first, second = tensor(1, 4, 4), tensor(1, 4, 4)
    found = match_blocks({"a": first, "b": first}, [first, second], 1e-4)
    assert found["a"] is not None and found["a"].place == 0
    assert found["b"] is not None and found["b"].place == 1 and found["b"].distance > 0.5
    # Where a block has no match, the search goes on from where it was.
    found = match_blocks({"a": tensor(1, 4, 4), "b": first}, [first, second], 1e-4)
    assert found["a"] is not None and found["a"].distance > 0.5
    assert found["b"] is not None and found["b"].distance == 0


def test_nothing_to_be_found() -> None:
    block = tensor(1, 4)
    assert match_blocks({"a": block}, [tensor(5)], 1.0) == {"a": None}
    assert match_blocks({"a": block}, [np.full((1, 4), np.nan, np.float32)], 1.0) == {"a": None}
    match = match_blocks({"a": block}, [np.zeros((1, 4), np.float32)], 1.0)["a"]
    assert match is not None
    assert match.distance == pytest.approx(1)
    assert match.cosine == 0
