"""Medians, percentiles, ratios and their intervals, on samples whose answers are known."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from edgeformer_runtime.bench.report import bootstrap, quantiles, ratio


def test_median_and_nearest_rank() -> None:
    found = quantiles([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]])
    assert (found.median, found.p90, found.runs) == (5.5, 9, 10)
    assert found.median_interval is None and found.p90_interval is None  # five rounds


def test_equal_samples_have_no_width() -> None:
    found = quantiles([[2.0, 2.0]] * 6)
    assert found.median_interval == found.p90_interval == (2.0, 2.0)


def test_the_interval_is_the_same_every_time() -> None:
    rounds = np.random.default_rng(1).gamma(4, size=(30, 5)).tolist()
    assert quantiles(rounds) == quantiles(rounds)


def test_the_interval_covers_the_true_median() -> None:
    """Of rounds that are drawn from a known distribution, 95 in 100 intervals hold its median."""
    generator = np.random.default_rng(2)
    true, hits = float(np.exp(1.0)), 0
    for _ in range(400):
        level = generator.normal(1.0, 0.1, size=(30, 1))  # what the runs of a round have in common
        times = np.exp(level + generator.normal(0, 0.02, size=(30, 4)))
        interval = quantiles(times.tolist()).median_interval
        assert interval is not None
        hits += interval[0] <= true <= interval[1]
    assert 0.92 <= hits / 400 <= 0.98


def test_runs_of_a_round_count_as_one_observation() -> None:
    """Thirty copies of a run say no more than the run."""
    once = np.random.default_rng(3).normal(10, 1, size=(20, 1))
    copied = np.repeat(once, 30, axis=1)

    def median(rounds: np.ndarray) -> np.ndarray:
        return np.asarray(np.median(rounds, axis=(-2, -1)))

    single, many = bootstrap(once, median), bootstrap(copied, median)
    assert single is not None and many is not None
    assert single == pytest.approx(many)


def test_ratios_compare_turns_of_the_same_round() -> None:
    """The machine gets slower from round to round; the ratio does not."""
    reference = [[float(factor)] * 3 for factor in range(1, 9)]
    doubled = [[2.0 * factor] * 3 for factor in range(1, 9)]
    assert ratio(doubled, reference) == (2.0, (2.0, 2.0))
    assert ratio(doubled[:5], reference[:5]) == (2.0, None)


def test_the_median_of_ratios() -> None:
    found, _ = ratio([[1, 2, 30], [4], [9]][1:], [[2], [3]])
    assert found == statistics.median([2, 3])


def test_many_rounds_are_drawn_in_parts() -> None:
    rounds = np.random.default_rng(4).normal(5, 1, size=(300, 50)).tolist()
    interval = quantiles(rounds).median_interval
    assert interval is not None and 4.9 < interval[0] < 5 < interval[1] < 5.1
