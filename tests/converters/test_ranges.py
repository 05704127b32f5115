"""Ranges of activations: by all values, by most of them, and by divergence."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer_converters.observe import ValueHistogram


def histogram(*batches: object) -> ValueHistogram:
    made = ValueHistogram()
    for batch in batches:
        made.add(np.asarray(batch, np.float32))
    return made


def test_min_max_is_exact_and_holds_zero() -> None:
    assert histogram([[1.5, 2.0]], [[0.25]]).range("min-max") == (0.0, 2.0)
    assert histogram([-3.0], [5.0, np.inf, np.nan]).range("min-max") == (-3.0, 5.0)
    assert histogram([]).range("entropy") == histogram([0.0]).range("percentile") == (0.0, 0.0)


def test_percentile_cuts_what_numpy_would_cut() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    # The second batch is four times as wide, so that the histogram has to grow.
    found = histogram(values[:100_000], values[100_000:] * 4).range("percentile")
    both = np.concatenate([values[:100_000], values[100_000:] * 4])
    np.testing.assert_allclose(found, np.percentile(both, [0.005, 99.995]), rtol=0.02)


def test_one_outlier_in_a_million_does_not_set_the_range() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[123] = 1e4
    made = histogram(values)
    assert made.range("min-max")[1] == pytest.approx(1e4)
    assert made.range("percentile")[1] < 10


def test_entropy_keeps_what_is_spread_evenly_and_cuts_long_tails() -> None:
    generator = np.random.default_rng(0)
    even = histogram(generator.uniform(-1, 1, 100_000)).range("entropy")
    np.testing.assert_allclose(even, (-1, 1), rtol=0.05)
    tail = generator.laplace(size=1_000_000)
    low, high = histogram(tail).range("entropy")
    assert np.abs(tail).max() * 0.2 < high < np.abs(tail).max() * 0.9
    assert low == pytest.approx(-high)


def test_what_has_one_sign_keeps_it() -> None:
    values = np.random.default_rng(0).exponential(size=10_000)
    for method in ("min-max", "percentile", "entropy"):
        low, high = histogram(values).range(method)
        assert low == 0
        assert 0 < high <= values.max() * 1.0001
