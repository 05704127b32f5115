"""Budgets as people write them, and what they say of values."""

from __future__ import annotations

import math

import pytest

from edgeformer.compress.budget.budget import Budget, Limit, describe, parse_budget
from edgeformer_runtime.errors import InputError


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("accuracy_drop<=0.5%", "accuracy_drop", 0.005),
        ("accuracy >= 0.93", "accuracy", 0.93),
        ("wer_rise<=1%", "wer_rise", 0.01),
        ("agreement>=99%", "agreement", 0.99),
        ("size<=8MB", "size", 8e6),
        (" size <= 1.5 MiB ", "size", 1.5 * 2**20),
        ("size<=900000B", "size", 9e5),
        ("latency<=20ms", "latency", 20.0),
        ("latency<=.25s", "latency", 250.0),
    ],
)
def test_units_are_understood(text: str, metric: str, bound: float) -> None:
    (limit,) = parse_budget(text).limits
    assert (limit.metric, limit.bound, limit.text) == (metric, pytest.approx(bound), text.strip())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown metric '': expected any of accuracy, accuracy_drop, wer"),
        ("speed<=3ms", "unknown metric 'speed'"),
        ("size<=8MB,", "unknown metric ''"),
        ("size>=8MB", "expected size<= and a number, found 'size>=8MB'"),
        ("accuracy=0.9", "expected accuracy>= and a number"),
        ("size", "expected size<= and a number"),
        ("size<=8", "expected one of B, KB, MB, GB, KiB, MiB, GiB as the unit of size, found none in 'size<=8'"),
        ("latency<=20MB", "expected one of ms, s, us as the unit of latency, found MB"),
        ("accuracy_drop<=0.5ms", "expected one of %, none as the unit of accuracy_drop, found ms"),
        ("size<=-3MB", "expected a number of at least 0 with its unit, as in size<=8MB"),
        ("size<=nanMB", "expected a number of at least 0"),
        ("size<=8MB; latency<=3ms", "expected a number of at least 0"),
        ("accuracy>=97", "accuracy as a share of at most 1, or with %, found 'accuracy>=97'"),
        ("size<=8MB, size<=9MB", "size is limited twice"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"^budget: ") as error:
        parse_budget(text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_limits_are_met_on_their_bound_and_missed_beyond() -> None:
    budget = parse_budget("accuracy>=90%, size<=2MB")
    assert budget.missed({"accuracy": 0.9, "size": 2e6}) == ()
    assert budget.distance({"accuracy": 0.95, "size": 1e6}) == 0
    assert [limit.metric for limit in budget.missed({"accuracy": 0.89, "size": 3e6})] == ["accuracy", "size"]
    assert budget.distance({"accuracy": 0.9, "size": 3e6}) == pytest.approx(0.5)
    assert [limit.metric for limit in budget.missed({"size": 1e6, "accuracy": math.nan})] == ["accuracy"]
    assert budget.distance({"size": 1e6}) == math.inf
    assert str(budget) == "accuracy>=90%, size<=2MB"


def test_a_bound_of_zero_counts_in_whole_units() -> None:
    assert Limit("accuracy_drop", 0.0, "accuracy_drop<=0").excess(0.25) == 0.25


@pytest.mark.parametrize(
    ("text", "task", "known"),
    [
        ("accuracy>=1%", "speech-recognition", "wer, wer_rise, agreement, size, latency"),
        ("wer<=1%", "image-classification", "accuracy, accuracy_drop, agreement, size, latency"),
    ],
)
def test_each_task_has_its_metrics(text: str, task: str, known: str) -> None:
    with pytest.raises(InputError, match=f"{task} has no .*: expected any of {known}$"):
        parse_budget(text).check_task(task)
    Budget(parse_budget("agreement>=1%, size<=1B").limits).check_task(task)


def test_values_are_shown_in_units_that_people_read() -> None:
    shown = [describe("size", 2_740_000.0), describe("latency", 18.018), describe("wer_rise", 0.00251)]
    assert shown == ["2.74 MB", "18.02 ms", "0.25%"]
