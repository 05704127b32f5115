"""One model in one form, with what is known of it, and which of several no other beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer.compress.budget.search import Change
from edgeformer.evaluate.speech import count_word_errors, simple_words

Z_95 = 1.96


@dataclass(frozen=True)
class Variant:
    """One model in one form: a bundle, a point of a search, or a compressed checkpoint after a step.

    Attributes:
        name: relative to the folder; of points and steps with what they are.
        kind: "bundle", "search" or "checkpoint".
        target, precision: of bundles and points.
        size_bytes: of all its files.
        metric: "accuracy" or "wer"; None where nothing was asked.
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
    sign = 1 if one.metric == "wer" else -1
    pairs: list[tuple[float, float]] = [
        (sign * value, sign * against)
        for value, against in ((one.value, other.value),)
        if value is not None and against is not None
    ]
    for mine, theirs in ((one.size_bytes, other.size_bytes), (one.latency_ms, other.latency_ms)):
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def share_interval(share: float, n: int) -> tuple[float, float]:
    """What holds a share of n with 95 % (Wilson 1927)."""
    square = Z_95**2 / n
    middle = share + square / 2
    reach = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))


def word_error_interval(said: Sequence[str], heard: Sequence[str]) -> tuple[float, float] | None:
    """What holds a word error rate with 95 %, as a ratio of sums over clips (Cochran 1977, 6.4); None of one clip."""
    each = [count_word_errors(one, other, simple_words) for one, other in zip(said, heard, strict=True)]
    n, words = len(each), sum(one.words for one in each)
    if n < 2 or not words:
        return None
    rate = sum(one.errors for one in each) / words
    spread = sum((one.errors - rate * one.words) ** 2 for one in each) * n / (n - 1)
    reach = Z_95 * math.sqrt(spread) / words
    return max(0.0, rate - reach), rate + reach
