"""The order of plans, and the search along it, against models of bundles whose best plan is known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from edgeformer.compress.budget.budget import parse_budget
from edgeformer.compress.budget.search import Candidate, Point, SearchResult, frontier, search, unreachable
from edgeformer.compress.budget.sensitivity import LayerCost, Reading, Sensitivity
from edgeformer.convert.layer_plan import LayerPlan

BYTES = {"fp32": 4000, "int8": 1000, "int4": 500}
COSTS = {
    "easy": {"int8": 0.001, "int4": 0.002},
    "middle": {"int8": 0.01, "int4": 0.2},
    "hard": {"int8": 0.3, "int4": 0.4},
}
OVERHEAD = 300


def sensitivity() -> Sensitivity:
    costs = [
        LayerCost(layer, name, BYTES[name], BYTES["fp32"], Reading(0.9, 0.9, value))
        for layer, formats in COSTS.items()
        for name, value in formats.items()
    ]
    return Sensitivity("litert", "accuracy", 100, Reading(1.0, 1.0, 0.0), tuple(costs))


class Bench:
    """Bundles whose accuracy falls by what COSTS says, and whose size is that of their weights and some more."""

    def __init__(self) -> None:
        self.made: list[LayerPlan] = []

    def values(self, plan: LayerPlan) -> dict[str, float]:
        lost = sum(COSTS[layer].get(name, 0.0) for layer, name in plan.layers.items())
        size = OVERHEAD + sum(BYTES[name] for name in plan.layers.values())
        return {"accuracy": 1 - lost, "accuracy_drop": lost, "size": float(size)}

    def measure(self, plan: LayerPlan) -> Point:
        self.made.append(plan)
        return Point("quantize", plan, self.values(plan))

    def find(self, budget: str, bundles: int = 5, predicted: float = 1.0) -> SearchResult:
        """Search; torch predicts so many times the true loss."""
        candidates = frontier(sensitivity())

        def guess(plan: LayerPlan) -> Mapping[str, float]:
            return {"accuracy_drop": predicted * self.values(plan)["accuracy_drop"]}

        return search(parse_budget(budget), candidates, guess, self.measure, self.fp32(candidates[0]), bundles)

    def fp32(self, candidate: Candidate) -> Point:
        return Point("quantize", candidate.plan, self.values(candidate.plan))


def test_plans_shrink_by_what_costs_least_per_byte() -> None:
    candidates = frontier(sensitivity())
    sizes = [candidate.weight_bytes for candidate in candidates]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 12000 and sizes[-1] == 1500
    moves = [
        (layer, after.plan.layers[layer])
        for before, after in itertools.pairwise(candidates)
        for layer in COSTS
        if before.plan.layers[layer] != after.plan.layers[layer]
    ]
    # Slopes: .001/3000, .001/500, .01/3000, .3/3000, .1/500 and .19/500.
    assert moves == [
        ("easy", "int8"),
        ("easy", "int4"),
        ("middle", "int8"),
        ("hard", "int8"),
        ("hard", "int4"),
        ("middle", "int4"),
    ]


def test_formats_above_the_hull_are_left_out() -> None:
    found = sensitivity()
    costs = [cost for cost in found.costs if cost.layer == "easy"]
    worse = LayerCost("easy", "int8", 1000, 4000, Reading(0.9, 0.9, 0.5))
    candidates = frontier(Sensitivity("litert", "accuracy", 1, found.reference, (worse, costs[1])))
    assert [candidate.plan.layers["easy"] for candidate in candidates] == ["fp32", "int4"]


@pytest.mark.parametrize("predicted", [0.01, 0.5, 1.0, 2.0, 100.0])
def test_the_smallest_plan_that_is_good_enough_is_found(predicted: float) -> None:
    """However wrong torch is."""
    found = Bench().find("accuracy_drop<=2%", predicted=predicted)
    assert found.met and found.best is not None
    assert dict(found.best.plan.layers) == {"easy": "int4", "middle": "int8", "hard": "fp32"}


def test_a_right_prediction_takes_two_bundles() -> None:
    bench = Bench()
    assert bench.find("accuracy_drop<=2%, size<=6KB").met
    assert len(bench.made) == 2


def test_without_a_bound_on_quality_the_most_exact_small_enough_plan_is_taken() -> None:
    found = Bench().find("size<=6KB")
    assert found.met and found.best is not None
    assert dict(found.best.plan.layers) == {"easy": "int4", "middle": "int8", "hard": "fp32"}


def test_the_smallest_plan_is_tried_before_a_size_is_out_of_reach() -> None:
    """Sizes are estimates: here every bundle but the smallest is larger than its weights say."""
    bench = Bench()
    true = bench.measure

    def heavier(plan: LayerPlan) -> Point:
        point = true(plan)
        extra = 0 if set(plan.layers.values()) == {"int4"} else 2000
        return Point("quantize", plan, {**point.values, "size": point.values["size"] + extra})

    bench.measure = heavier  # type: ignore[method-assign]
    found = bench.find("size<=2KB")
    assert found.met and found.best is not None and set(found.best.plan.layers.values()) == {"int4"}


def test_what_is_met_at_once_is_still_made_smaller() -> None:
    found = Bench().find("accuracy>=0%")
    assert found.best is not None and set(found.best.plan.layers.values()) == {"int4"}


def test_what_cannot_be_met_is_said_with_the_nearest_point() -> None:
    bench = Bench()
    budget = "accuracy_drop<=2%, size<=1KB"
    found = bench.find(budget)
    assert not found.met and len(bench.made) == 2
    assert set(bench.made[0].layers.values()) == {"int4"}
    assert found.best is found.points[2]
    assert unreachable(parse_budget(budget), found) == (
        "the budget cannot be met: size<=1KB out of reach; nearest (quantize): accuracy 98.80%, accuracy_drop 1.20%, "
        "size 0.01 MB"
    )


def test_the_number_of_bundles_is_kept() -> None:
    bench = Bench()
    bench.find("accuracy_drop<=2%", bundles=1, predicted=100.0)
    assert len(bench.made) == 1


def test_refused_bundles_are_passed_over() -> None:
    bench = Bench()
    measure = bench.measure

    def strict(plan: LayerPlan) -> Point:
        point = measure(plan)
        return Point("quantize", plan, {}, refused="parity") if plan.layers["hard"] != "fp32" else point

    bench.measure = strict  # type: ignore[method-assign]
    found = bench.find("accuracy>=0%")
    assert found.met and found.best is not None and found.best.plan.layers["hard"] == "fp32"
    assert any(point.refused for point in found.points)
