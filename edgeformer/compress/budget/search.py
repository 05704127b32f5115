"""The search for a plan that meets a budget: few real bundles, led by the sensitivity of the layers.

The sensitivity orders plans from fp32 to the smallest. Along that order the size falls and the errors grow, so the
plan that is sought lies between one that is good enough and one that is not: torch says where to begin, bundles decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeformer.compress.budget.budget import Budget, describe, quality_names
from edgeformer.compress.budget.sensitivity import EXACT, LayerCost, Sensitivity
from edgeformer.convert.layer_plan import FORMATS, LayerPlan
from edgeformer.evaluate.evaluate import Answers

SEARCH_FILE, SENSITIVITY_FILE, PLAN_FILE = "search.json", "sensitivity.json", "plan.json"
"""What a search leaves in the checkpoint that it writes."""

DEFAULT_BUNDLES = 5

_WORTH = 0.02
"""Share of a plan's size below which a smaller plan is not worth another bundle."""
_BUNDLES_WITHOUT_HOPE = 2
"""Where even the smallest plan is too large: it, and one between it and fp32."""


@dataclass(frozen=True)
class Candidate:
    """A plan on the way from fp32 to the smallest.

    Attributes:
        plan: formats of all layers.
        weight_bytes: what the quantizable weights take.
    """

    plan: LayerPlan
    weight_bytes: int


@dataclass(frozen=True)
class Change:
    """An example whose answer is another than the source's: what is right, what the source said, and what this did."""

    example: str
    truth: str
    source: str
    answer: str


def changes_between(source: Answers, other: Answers) -> tuple[Change, ...]:
    """The examples to which two bundles answer differently."""
    rows = zip(source.examples, source.truth, source.given, other.given, strict=True)
    return tuple(Change(*row) for row, same in zip(rows, other.same_as(source), strict=True) if not same)


@dataclass(frozen=True)
class Point:
    """A plan and what its bundle was.

    Attributes:
        stage: how the model was made smaller before: "quantize" for not at all, or a recipe's name.
        plan: the formats.
        values: by the names of `budget.quantities`; empty where the bundle was refused.
        fp32_latency_ms: of the source at fp32 in the same run, interleaved.
        refused: why a gate of the conversion did not let the bundle pass, or None.
        changes: the answers that are not the source's.
    """

    stage: str
    plan: LayerPlan
    values: Mapping[str, float]
    fp32_latency_ms: float | None = None
    refused: str | None = None
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "stage": self.stage,
            "plan": self.plan.to_json(),
            "values": dict(self.values),
            "fp32_latency_ms": self.fp32_latency_ms,
            "refused": self.refused,
            "changes": [vars(change) for change in self.changes],
        }

    def __str__(self) -> str:
        if self.refused is not None:
            return f"{self.stage}: refused ({self.refused})"
        return f"{self.stage}: " + ", ".join(f"{name} {describe(name, found)}" for name, found in self.values.items())


@dataclass(frozen=True)
class SearchResult:
    """All points of a search, and which of them to take.

    Attributes:
        points: in the order in which they were measured.
        best: the smallest that meets the budget, or else the nearest to it; None where no bundle passed its gates.
        met: whether `best` meets the budget.
    """

    points: tuple[Point, ...]
    best: Point | None
    met: bool


def format_counts(plan: LayerPlan) -> str:
    """How many layers have each format: "3 fp32, 40 int8"; of a plan without layers its default."""
    found = Counter(plan.layers.values())
    return ", ".join(f"{found[name]} {name}" for name in FORMATS if found[name]) or plan.default


def frontier(found: Sensitivity) -> tuple[Candidate, ...]:
    """Plans from fp32 to the smallest; each gives one layer the format that costs least for the bytes that it saves.

    Of each layer only formats on the lower convex hull of bytes and divergence are used, which are then taken by rising
    slope (Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers").
    """
    options: dict[str, list[LayerCost]] = {}
    for cost in found.costs:
        options.setdefault(cost.layer, []).append(cost)
    moves = [(slope, layer, cost) for layer, costs in sorted(options.items()) for slope, cost in _hull(costs)]
    moves.sort(key=lambda move: move[:2])
    formats = dict.fromkeys(sorted(options), EXACT)
    sizes = {layer: costs[0].fp32_bytes for layer, costs in options.items()}
    candidates = [Candidate(LayerPlan(formats, EXACT), sum(sizes.values()))]
    for _, layer, cost in moves:
        formats[layer], sizes[layer] = cost.format, cost.weight_bytes
        candidates.append(Candidate(LayerPlan(formats, EXACT), sum(sizes.values())))
    return tuple(candidates)


def search(
    budget: Budget,
    candidates: Sequence[Candidate],
    predicted: Callable[[LayerPlan], Mapping[str, float]],
    measure: Callable[[LayerPlan], Point],
    fp32: Point,
    bundles: int = DEFAULT_BUNDLES,
) -> SearchResult:
    """Find the smallest plan that is good enough; where the budget bounds no quality, the most exact small enough.

    Args:
        budget: what has to hold.
        candidates: see `frontier`.
        predicted: qualities by name, as torch's fake quantization has them.
        measure: makes a plan's bundle, and measures it.
        fp32: the point of the first candidate.
        bundles: how many to make at most.
    """
    qualities = Budget(tuple(limit for limit in budget.limits if limit.metric in quality_names()))
    base = fp32.values["size"] - candidates[0].weight_bytes
    sizes = [base + candidate.weight_bytes for candidate in candidates]
    points = {0: fp32}

    def acceptable(index: int) -> bool:
        """Whether to seek a smaller candidate: with qualities, this one is good enough; else it is still too large."""
        values = points[index].values
        return bool(values) and (not qualities.missed(values) if qualities.limits else bool(budget.missed(values)))

    low, high = 0, len(candidates)
    if acceptable(0):
        hopeless = _too_large(budget, sizes[-1])
        index = len(candidates) - 1 if hopeless else _first_guess(budget, qualities, candidates, sizes, predicted)
        most = min(bundles, _BUNDLES_WITHOUT_HOPE) if hopeless else bundles
        while len(points) <= most and low < index < high:
            points[index] = measure(candidates[index].plan)
            low, high = (index, high) if acceptable(index) else (low, index)
            index = _between(sizes, low, high)
            if index == high == len(candidates) and not qualities.limits:
                index = high - 1  # Nothing was small enough yet: not before the smallest was tried is that final.
    found = tuple(points.values())
    passed = [point for point in found if point.values]
    meeting = [point for point in passed if not budget.missed(point.values)]
    if meeting:
        return SearchResult(found, min(meeting, key=lambda point: point.values["size"]), True)
    nearest = min(passed, key=lambda point: budget.distance(point.values), default=None)
    return SearchResult(found, nearest, False)


def unreachable(budget: Budget, found: SearchResult) -> str:
    """What cannot be reached, and the nearest point, in one line."""
    if found.best is None:
        return f"the budget {budget} cannot be met: no bundle passed the gates of its conversion"
    missed = budget.missed(found.best.values)
    shown = ", ".join(f"{name} {describe(name, value)}" for name, value in found.best.values.items())
    return (
        f"the budget cannot be met: {' and '.join(limit.text for limit in missed)} out of reach; nearest "
        f"({found.best.stage}): {shown}"
    )


def _hull(costs: Sequence[LayerCost]) -> list[tuple[float, LayerCost]]:
    """A layer's formats on the lower convex hull from fp32 on, each with its slope: nats per byte saved."""
    found: list[tuple[float, LayerCost]] = []
    size, divergence = costs[0].fp32_bytes, 0.0
    while smaller := [cost for cost in costs if cost.weight_bytes < size]:
        slopes = [(cost.reading.divergence - divergence) / (size - cost.weight_bytes) for cost in smaller]
        # Of equal slopes the smallest, so that the hull has as few corners as it can.
        slope, cost = min(zip(slopes, smaller, strict=True), key=lambda pair: (pair[0], pair[1].weight_bytes))
        found.append((slope, cost))
        size, divergence = cost.weight_bytes, cost.reading.divergence
    return found


def _too_large(budget: Budget, smallest: float) -> bool:
    """Whether not even the smallest plan can have the size; the estimate may be off by a little."""
    limit = budget.limit("size")
    return limit is not None and limit.excess(smallest) > _WORTH


def _first_guess(
    budget: Budget,
    qualities: Budget,
    candidates: Sequence[Candidate],
    sizes: Sequence[float],
    predicted: Callable[[LayerPlan], Mapping[str, float]],
) -> int:
    """Index of the candidate to try first: the last that torch predicts to be good enough, or the first small one."""
    limit, last = budget.limit("size"), len(candidates) - 1
    if not qualities.limits:
        return next((index for index, size in enumerate(sizes) if limit and not limit.excess(size)), last)
    low, high = 0, last + 1
    while high - low > 1:
        # The end first: where all layers may be small, nothing else has to be tried.
        middle = last if high > last else (low + high) // 2
        known = predicted(candidates[middle].plan)
        good = not any(each.excess(known[each.metric]) for each in qualities.limits if each.metric in known)
        low, high = (middle, high) if good else (low, middle)
    return max(1, low)


def _between(sizes: Sequence[float], low: int, high: int) -> int:
    """Index of the candidate of the size nearest to the middle of two others; `high` if none between is worth it."""
    if high - low <= 1:
        return high
    end = sizes[min(high, len(sizes) - 1)]
    if sizes[low] - end < _WORTH * sizes[low]:
        return high
    middle = (sizes[low] + end) / 2
    inner = range(low + 1, high)
    return min(inner, key=lambda index: abs(sizes[index] - middle))
