"""One model in one form, with what is known of it, and which of several no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer.compress.budget.search import Change
from edgeformer.tasks.task import task_metrics


@dataclass(frozen=True)
class Variant:
    """One model in one form: a bundle, a point of a search, or a compressed checkpoint after a step.

    Attributes:
        name: relative to the folder; of points and steps with what they are.
        kind: "bundle", "search" or "checkpoint".
        target, precision: of bundles and points.
        size_bytes: of all its files.
        metric: the name of a task's metric; None where nothing was asked.
        value: of the metric, a fraction.
        agreement: share of answers that are the source's at fp32; None where the source is not known.
        latency_ms: median of one run, one thread, on the machine that measured it.
        note: what a reader should know: a gate that refused it, say.
        changes: answers that are not the source's; None where they are not known.
        n: the number of examples that `value`, or else `agreement`, is of; None where it is not known.
        interval: what holds the metric's value with 95 %; None where it is not known.
        group: what it was measured with, and on: only variants of one group are compared.
    """

    name: str
    kind: str
    target: str | None = None
    precision: str | None = None
    size_bytes: int | None = None
    metric: str | None = None
    value: float | None = None
    agreement: float | None = None
    latency_ms: float | None = None
    note: str | None = None
    changes: tuple[Change, ...] | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    group: str = ""


def pareto(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Those to which no other of their group is equal or better in value, size and latency at once.

    What is unknown is not compared. Variants without a value or a size are never among them.
    """
    complete = [each for each in variants if each.value is not None and each.size_bytes is not None]
    return tuple(each for each in complete if not any(_dominates(other, each) for other in complete))


def _dominates(one: Variant, other: Variant) -> bool:
    if one is other or (one.metric, one.group) != (other.metric, other.group):
        return False
    metric = task_metrics().get(one.metric or "")
    sign = 1 if metric is not None and metric.is_error else -1
    pairs: list[tuple[float, float]] = [
        (sign * value, sign * against)
        for value, against in ((one.value, other.value),)
        if value is not None and against is not None
    ]
    for mine, theirs in ((one.size_bytes, other.size_bytes), (one.latency_ms, other.latency_ms)):
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)
