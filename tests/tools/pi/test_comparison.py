"""Outputs of two machines: what counts as a difference, and how much is too much."""

from __future__ import annotations

import numpy as np
import pytest

from tools.pi.comparison import TOLERANCES, compare

HERE = {"seq_32/logits": np.array([[1.0, -4.0]], np.float32), "seq_64/logits": np.array([[0.5, 2.0]], np.float32)}


def moved(by: float) -> dict[str, np.ndarray]:
    """The outputs of a machine that is off by so much, as a fraction of the largest value, in one place."""
    return HERE | {"seq_32/logits": np.array([[1.0 + 4 * by, -4.0]], np.float32)}


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_tolerance_is_the_precisions(precision: str) -> None:
    tolerance = TOLERANCES[precision]
    within, beyond = (compare("b", precision, HERE, moved(factor * tolerance)) for factor in (0.8, 1.2))
    assert within.ok
    assert not beyond.ok
    assert beyond.worst == "seq_32/logits"
    assert beyond.difference == pytest.approx(1.2 * tolerance, rel=0.05)
    assert beyond.to_json()["ok"] is False


def test_exact_means_every_bit() -> None:
    assert compare("b", "static-int8", HERE, dict(HERE), exact=True).ok
    last_bit = HERE | {"seq_32/logits": np.nextafter(HERE["seq_32/logits"], np.float32(9))}
    assert not compare("b", "static-int8", HERE, last_bit, exact=True).ok
    assert compare("b", "static-int8", HERE, last_bit).ok


@pytest.mark.parametrize(
    "there",
    [
        {"seq_32/logits": HERE["seq_32/logits"]},
        HERE | {"seq_32/logits": np.array([[1.0, -4.0, 0.0]], np.float32)},
        HERE | {"seq_32/logits": HERE["seq_32/logits"].astype(np.float64)},
        HERE | {"seq_32/logits": np.array([[1.0, np.nan]], np.float32)},
    ],
)
def test_an_output_that_is_missing_or_of_another_kind_differs(there: dict[str, np.ndarray]) -> None:
    found = compare("b", "fp32", HERE, there)
    assert not found.ok
    assert found.to_json()["difference"] is None
