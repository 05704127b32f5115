"""Calls one MIL operator of the reference by its MIL input names, on numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgeformer_converters.mil.operators import OPERATORS

Case = tuple[str, dict[str, Any], Any]
"""An operator, its inputs, and what they give."""

RANDOM = np.random.default_rng(1)
X = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = RANDOM.standard_normal((2, 4, 6, 8)).astype(np.float32)


def vector(*values: int) -> torch.Tensor:
    """A constant of int32."""
    return torch.tensor(values, dtype=torch.int32)


def call(name: str, **inputs: Any) -> Any:
    """The result, or results, as numpy arrays."""
    operands = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in inputs.items()
    }
    results = OPERATORS[name](**operands)
    return tuple(np.asarray(each) for each in results) if isinstance(results, tuple) else np.asarray(results)


def check(case: Case) -> None:
    """Compare an operator's results with what is expected, shapes included."""
    name, inputs, expected = case
    got = call(name, **inputs)
    pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
    for found, wanted in pairs:
        assert np.shape(found) == np.shape(wanted)
        np.testing.assert_allclose(found, wanted, rtol=5e-6, atol=5e-6)
