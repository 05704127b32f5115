"""Each MIL operator against numpy, with MIL's own input names and defaults."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import test_mil_image_operators
import test_mil_index_operators
import test_mil_recurrent_operators
import test_mil_shape_operators
import test_mil_window_operators
import torch

from edgeformer_converters.mil.operators import OPERATORS

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)
Y = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + 0.5
UNIT = np.clip(X / 4, -0.9, 0.9)
IMAGE = RANDOM.standard_normal((1, 2, 5, 6)).astype(np.float32)
KERNEL = RANDOM.standard_normal((3, 2, 2, 2)).astype(np.float32)
BOTH = [torch.from_numpy(X), torch.from_numpy(Y)]
ERF = np.vectorize(math.erf)


def vector(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def call(name: str, **inputs: Any) -> np.ndarray[Any, Any]:
    operands = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in inputs.items()
    }
    return np.asarray(OPERATORS[name](**operands))


def softmax(x: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def layer_norm(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


UNARY = {
    "abs": (X, np.abs(X)),
    "acos": (UNIT, np.arccos(UNIT)),
    "asin": (UNIT, np.arcsin(UNIT)),
    "atan": (X, np.arctan(X)),
    "atanh": (UNIT, np.arctanh(UNIT)),
    "ceil": (X, np.ceil(X)),
    "cos": (X, np.cos(X)),
    "cosh": (X, np.cosh(X)),
    "erf": (X, ERF(X)),
    "exp": (X, np.exp(X)),
    "exp2": (X, np.exp2(X)),
    "floor": (X, np.floor(X)),
    "identity": (X, X),
    "inverse": (POSITIVE, 1 / (POSITIVE + 1e-4)),
    "log": (POSITIVE, np.log(POSITIVE)),
    "logical_not": (X > 0, X <= 0),
    "relu": (X, np.maximum(X, 0)),
    "relu6": (X * 9, np.clip(X * 9, 0, 6)),
    "round": (X, np.round(X)),
    "rsqrt": (POSITIVE, 1 / np.sqrt(POSITIVE)),
    "sigmoid": (X, 1 / (1 + np.exp(-X))),
    "sign": (X, np.sign(X)),
    "silu": (X, X / (1 + np.exp(-X))),
    "sin": (X, np.sin(X)),
    "sinh": (X, np.sinh(X)),
    "softplus": (X, np.log1p(np.exp(X))),
    "softsign": (X, X / (1 + np.abs(X))),
    "sqrt": (POSITIVE, np.sqrt(POSITIVE)),
    "square": (X, X * X),
    "tan": (UNIT, np.tan(UNIT)),
    "tanh": (X, np.tanh(X)),
    "gelu": (X, X * 0.5 * (1 + ERF(X / math.sqrt(2)))),
    "softmax": (X, softmax(X, -1)),
    "layer_norm": (X, (X - X.mean()) / np.sqrt(X.var() + 1e-5)),
    "reduce_max": (X, X.max()),
    "reduce_mean": (X, X.mean()),
    "shape": (X, np.array([2, 3, 4])),
    "squeeze": (X[:1], X[0]),
}
BINARY = {
    "add": (X, Y, X + Y),
    "equal": (X, X, np.ones_like(X, bool)),
    "floor_div": (X, POSITIVE, np.floor(X / POSITIVE)),
    "greater": (X, Y, X > Y),
    "greater_equal": (X, Y, X >= Y),
    "less": (X, Y, X < Y),
    "less_equal": (X, Y, X <= Y),
    "logical_and": (X > 0, Y > 0, (X > 0) & (Y > 0)),
    "logical_or": (X > 0, Y > 0, (X > 0) | (Y > 0)),
    "logical_xor": (X > 0, Y > 0, (X > 0) ^ (Y > 0)),
    "maximum": (X, Y, np.maximum(X, Y)),
    "minimum": (X, Y, np.minimum(X, Y)),
    "mod": (X, POSITIVE, np.mod(X, POSITIVE)),
    "mul": (X, Y, X * Y),
    "not_equal": (X, Y, X != Y),
    "pow": (POSITIVE, Y, POSITIVE**Y),
    "real_div": (X, POSITIVE, X / POSITIVE),
    "sub": (X, 2.0, X - 2),
}
LAST = vector(-1)
ROWS = vector(1, 0, -1)
# For each case the operator, its inputs and what numpy makes of them.
OTHERS: list[tuple[str, dict[str, Any], Any]] = [
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}, X / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (X + 0.044715 * X**3)))),
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}, X / (1 + np.exp(-1.702 * X))),
    ("clip", {"x": X, "alpha": -0.5, "beta": 0.25}, np.clip(X, -0.5, 0.25)),
    ("elu", {"x": X, "alpha": 0.5}, np.where(X > 0, X, 0.5 * np.expm1(X))),
    ("leaky_relu", {"x": X, "alpha": 0.1}, np.where(X > 0, X, 0.1 * X)),
    ("rsqrt", {"x": POSITIVE, "epsilon": 0.5}, 1 / np.sqrt(POSITIVE + 0.5)),
    ("log", {"x": POSITIVE, "epsilon": 0.5}, np.log(POSITIVE + 0.5)),
    ("cast", {"x": X * 9, "dtype": "int32"}, np.trunc(X * 9)),
    ("cast", {"x": X > 0, "dtype": "fp16"}, (X > 0).astype(np.float32)),
    ("select", {"cond": X > 0, "a": X, "b": -1.0}, np.where(X > 0, X, -1)),
    ("softmax", {"x": X, "axis": 1}, softmax(X, 1)),
    ("layer_norm", {"x": X, "axes": LAST, "gamma": Y[0, 0], "beta": Y[0, 1]}, layer_norm(X) * Y[0, 0] + Y[0, 1]),
    ("reduce_sum", {"x": X, "axes": LAST, "keep_dims": True}, X.sum(-1, keepdims=True)),
    ("reduce_max", {"x": X, "axes": LAST}, X.max(-1)),
    ("reduce_min", {"x": X, "axes": LAST}, X.min(-1)),
    ("reduce_mean", {"x": X, "axes": vector(0, 2)}, X.mean((0, 2))),
    ("reduce_prod", {"x": X, "axes": vector(0, 2), "keep_dims": True}, X.prod((0, 2), keepdims=True)),
    ("reduce_sum_square", {"x": X, "axes": LAST}, (X**2).sum(-1)),
    ("reduce_l1_norm", {"x": X, "axes": LAST}, np.abs(X).sum(-1)),
    ("reduce_l2_norm", {"x": X, "axes": LAST, "keep_dims": True}, np.linalg.norm(X, axis=-1, keepdims=True)),
    ("reduce_log_sum_exp", {"x": X, "axes": LAST}, np.log(np.exp(X).sum(-1))),
    ("linear", {"x": X, "weight": Y[0], "bias": Y[1, :, 0]}, X @ Y[0].T + Y[1, :, 0]),
    ("linear", {"x": X, "weight": Y[0]}, X @ Y[0].T),
    ("matmul", {"x": X, "y": Y, "transpose_y": True}, X @ Y.swapaxes(1, 2)),
    ("matmul", {"x": X, "y": Y, "transpose_x": True}, X.swapaxes(1, 2) @ Y),
    ("einsum", {"values": BOTH, "equation": "bij,bkj->bik"}, X @ Y.swapaxes(1, 2)),
    ("quantize", {"input": X, "scale": 0.01, "zero_point": 3, "output_dtype": "int8"},
     np.clip(np.round(X / np.float32(0.01)) + 3, -128, 127)),
    ("dequantize", {"input": np.int32([[1, 2], [3, 4]]), "scale": np.float32([0.5, 2]), "axis": 0}, [[0.5, 1], [6, 8]]),
    ("concat", {"values": BOTH, "axis": -1}, np.concatenate([X, Y], -1)),
    ("concat", {"values": BOTH, "axis": -1, "interleave": True},
     np.stack([X, Y], -1).reshape(2, 3, 8)),
    ("expand_dims", {"x": X, "axes": vector(0, -1)}, X[None, ..., None]),
    ("squeeze", {"x": X[:1, :1], "axes": vector(1)}, X[:1, 0]),
    ("fill", {"shape": vector(2, 2), "value": 3.0}, np.full((2, 2), 3)),
    ("pad", {"x": X, "pad": vector(1, 0, 0, 2), "constant_val": 7.0},
     np.pad(X, ((0, 0), (1, 0), (0, 2)), constant_values=7)),
    ("pad", {"x": X, "pad": vector(1, 1), "mode": "reflect"}, np.pad(X, ((0, 0), (0, 0), (1, 1)), mode="reflect")),
    ("reshape", {"x": X, "shape": vector(0, -1, 2)}, X.reshape(2, 6, 2)),
    ("slice_by_index", {"x": X, "begin": vector(1, 0, 3), "end": vector(2, 3, 0), "stride": vector(1, 2, 1),
                        "end_mask": torch.tensor([False, False, True]),
                        "squeeze_mask": torch.tensor([True, False, False])},
     X[1, 0:3:2, 3:]),
    ("slice_by_size", {"x": X, "begin": vector(1, 0, 2), "size": vector(1, 2, -1)}, X[1:2, :2, 2:]),
    ("slice_update", {"x": X, "update": Y[:, :1], "begin": vector(0, 1, 0), "end": vector(2, 2, 4)},
     np.concatenate([X[:, :1], Y[:, :1], X[:, 2:]], 1)),
    ("stack", {"values": BOTH, "axis": 1}, np.stack([X, Y], 1)),
    ("tile", {"x": X, "reps": vector(1, 2, 1)}, np.tile(X, (1, 2, 1))),
    ("transpose", {"x": X, "perm": vector(2, 0, 1)}, X.transpose(2, 0, 1)),
]  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_operator_of_one_operand(name: str) -> None:
    x, expected = UNARY[name]
    np.testing.assert_allclose(call(name, x=x), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", BINARY)
def test_operator_of_two_operands(name: str) -> None:
    x, y, expected = BINARY[name]
    np.testing.assert_allclose(call(name, x=x, y=y), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "inputs", "expected"), OTHERS, ids=[name for name, _, _ in OTHERS])
def test_operator_with_options(name: str, inputs: dict[str, Any], expected: Any) -> None:
    np.testing.assert_allclose(call(name, **inputs), expected, rtol=5e-6, atol=2e-6)


def test_split_by_number_and_by_sizes() -> None:
    x = torch.from_numpy(X)
    halves = OPERATORS["split"](x=x, axis=-1, num_splits=2)
    np.testing.assert_array_equal(np.concatenate(halves, -1), X)
    assert [part.shape[1] for part in OPERATORS["split"](x=x, axis=1, split_sizes=vector(1, 2))] == [1, 2]


def test_attention_has_the_default_scale_and_an_additive_mask() -> None:
    mask = np.float32([[0, -100, 0], [0, 0, 0], [-100, 0, 0]])
    weights = softmax(X @ X.swapaxes(1, 2) / math.sqrt(4) + mask, -1)
    got = call("scaled_dot_product_attention", query=X, key=X, value=Y, attn_mask=mask)
    np.testing.assert_allclose(got, weights @ Y, rtol=1e-5, atol=1e-6)


def test_every_operator_has_a_test() -> None:
    alone = {"split", "scaled_dot_product_attention", "make_list", "list_write", "list_scatter"}
    modules = (test_mil_image_operators, test_mil_index_operators, test_mil_recurrent_operators,
               test_mil_shape_operators, test_mil_window_operators)  # fmt: skip
    cases = [*OTHERS, *test_mil_index_operators.LIST_CASES, *(case for module in modules for case in module.CASES)]
    assert set(OPERATORS) == {*UNARY, *BINARY, *alone, *(name for name, _, _ in cases)}


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("real_div", {"x": np.int32([3]), "y": np.int32([2])}),
    ],
)
def test_a_variant_that_is_not_implemented_is_an_error(name: str, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not supported"):
        call(name, **inputs)
