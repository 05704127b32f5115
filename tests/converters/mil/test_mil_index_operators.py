"""MIL's operators that pick, place, sort and count, and its lists, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mil_calls import RANDOM, Case, X, call, check, vector

PLACES = np.int32([[0, 2, -1], [1, 1, 0]])
PAIRS = np.int32([[0, 2], [1, -1]])
ROWS = X[0]
UPDATES = RANDOM.uniform(0.5, 2, (2, 4)).astype(np.float32)
TIES = np.float32([[3, 1, 3, 2]])


def _scattered(function: np.ufunc) -> np.ndarray:
    """Rows 2 and 0 of ROWS combined with the updates, and row 2 twice."""
    result = ROWS.copy()
    for index, update in zip((2, 2), UPDATES, strict=True):
        result[index] = function(result[index], update)
    return result


def _along(mode: str) -> dict[str, object]:
    return {"data": ROWS, "indices": np.int32([[2, 0, 1, 1]]), "updates": UPDATES[:1], "mode": mode}


def _written() -> np.ndarray:
    result = ROWS.copy()
    np.put_along_axis(result, np.int64([[2, 0, 1, 1]]), UPDATES[:1], 0)
    return result


CASES: list[Case] = [
    ("gather", {"x": X, "indices": PLACES, "axis": 1}, X[:, PLACES]),
    ("gather", {"x": X, "indices": PLACES, "axis": 1, "batch_dims": 1}, np.stack([X[i][PLACES[i]] for i in range(2)])),
    ("gather", {"x": X, "indices": PLACES, "axis": 2, "batch_dims": 1},
     np.stack([X[i][:, PLACES[i]] for i in range(2)])),
    ("gather", {"x": X, "indices": 1, "axis": -1}, X[..., 1]),
    ("gather_along_axis", {"x": X[:, 0], "indices": PLACES, "axis": 1}, np.take_along_axis(X[:, 0], PLACES, 1)),
    ("gather_nd", {"x": X, "indices": PAIRS}, X[PAIRS[:, 0], PAIRS[:, 1]]),
    ("gather_nd", {"x": X, "indices": PAIRS.reshape(2, 1, 2), "batch_dims": 1},
     np.stack([X[i][tuple(PAIRS[i])] for i in range(2)])[:, None]),
    *(
        ("scatter", {"data": ROWS, "indices": vector(2, -1), "updates": UPDATES, "mode": mode}, _scattered(function))
        for mode, function in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
                               ("max", np.maximum), ("min", np.minimum))
    ),
    ("scatter", {"data": ROWS, "indices": vector(0), "updates": X[1, :, :1], "axis": 1, "mode": "update"},
     np.concatenate([X[1, :, :1], ROWS[:, 1:]], 1)),
    ("scatter_along_axis", _along("update"), _written()),
    ("scatter_nd", {"data": X, "indices": PAIRS, "updates": UPDATES, "mode": "update"},
     np.stack([np.stack([X[0, 0], X[0, 1], UPDATES[0]]), np.stack([X[1, 0], X[1, 1], UPDATES[1]])])),
    ("scatter_nd", {"data": np.zeros(3, np.int32), "indices": np.int32([[1], [1]]), "updates": np.int32([2, 3])},
     [0, 5, 0]),
    ("topk", {"x": X, "k": 2}, (np.sort(X, -1)[..., :1:-1], np.argsort(-X, -1)[..., :2])),
    ("topk", {"x": X, "k": 2, "axis": 1, "ascending": True}, (np.sort(X, 1)[:, :2], np.argsort(X, 1)[:, :2])),
    ("topk", {"x": TIES, "k": -1, "return_indices": False, "sort": False}, ([[3, 3, 2, 1]],)),
    ("argsort", {"x": TIES}, [[0, 2, 3, 1]]),
    ("argsort", {"x": X, "axis": 1, "ascending": True}, np.argsort(X, 1)),
    ("reduce_argmax", {"x": X, "axis": 1, "keep_dims": True}, X.argmax(1, keepdims=True)),
    ("reduce_argmax", {"x": X, "output_dtype": "uint16"}, X.argmax(-1)),
    ("reduce_argmin", {"x": X}, X.argmin(-1)),
    ("non_zero", {"x": PLACES}, np.argwhere(PLACES)),
    ("one_hot", {"indices": vector(2, 0), "one_hot_vector_size": 3}, [[0, 0, 1], [1, 0, 0]]),
    ("one_hot", {"indices": vector(2, 0), "one_hot_vector_size": 3, "axis": 0, "on_value": 5.0, "off_value": -1.0},
     [[-1, 5], [-1, -1], [5, -1]]),
]  # fmt: skip

WRITTEN = (torch.tensor([1.0, 2.0]), None, torch.tensor([5.0, 6.0]))
LIST_CASES: list[Case] = [
    ("list_length", {"ls": WRITTEN}, 3),
    ("list_read", {"ls": WRITTEN, "index": 2}, [5, 6]),
    ("list_gather", {"ls": WRITTEN, "indices": vector(2, 0)}, [[5, 6], [1, 2]]),
]


@pytest.mark.parametrize("case", [*CASES, *LIST_CASES], ids=lambda case: case[0])
def test_operator(case: Case) -> None:
    check(case)


def test_a_list_is_made_written_and_grows() -> None:
    from edgeformer_converters.mil.operators import OPERATORS

    (empty,) = OPERATORS["make_list"](init_length=2, elem_shape=[1, 2], dtype="fp32")
    (one,) = OPERATORS["list_write"](ls=empty, index=1, value=torch.tensor([7.0]))
    (more,) = OPERATORS["list_scatter"](ls=one, indices=vector(0, 3), value=torch.tensor([[8.0], [9.0]]))
    assert [None if each is None else each.item() for each in more] == [8, 7, None, 9]
    assert [None if each is None else each.item() for each in one] == [None, 7]
    with pytest.raises(ValueError, match="read before it is written"):
        OPERATORS["list_read"](ls=more, index=2)


def test_another_mode_of_scatter_is_an_error() -> None:
    with pytest.raises(ValueError, match="not supported"):
        call("scatter", data=ROWS, indices=vector(1), updates=UPDATES[:1], mode="pow")
