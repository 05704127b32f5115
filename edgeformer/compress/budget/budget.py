"""Budgets: what a compressed model may cost, as people write it.

    accuracy_drop<=0.5%, size<=8MB, latency<=20ms

Drops and rises are differences to the source model in fp32, in percentage points of the same data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from edgeformer.tasks.task import TASKS, Metric
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import did_you_mean

AT_MOST, AT_LEAST = "<=", ">="

_SHARES = MappingProxyType({"%": 0.01, "": 1.0})
_SIZES = MappingProxyType(
    {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
)
_TIMES = MappingProxyType({"ms": 1.0, "s": 1e3, "us": 1e-3})

_TERM = re.compile(r"(\w*)\s*([<>=]*)\s*(.*)", re.DOTALL)
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)\s*(%|[A-Za-z]*)")


@dataclass(frozen=True)
class Quantity:
    """Something that a budget can bound.

    Attributes:
        direction: "<=" for what should be small, ">=" for what should be large.
        units: factor of each unit that may be written.
    """

    direction: str
    units: Mapping[str, float]


AGREEMENT = "agreement"
_OF_ALL = MappingProxyType(
    {
        AGREEMENT: Quantity(AT_LEAST, _SHARES),  # answers that are the source's
        "size": Quantity(AT_MOST, _SIZES),  # of the bundle's files together
        "latency": Quantity(AT_MOST, _TIMES),  # median of one run, one thread
    }
)
"""What models of every task have."""


def _metrics() -> list[Metric]:
    """Of the tasks that can be trained: others have no budget."""
    return list(dict.fromkeys(task.metric for task in TASKS.values() if task.metric and task.training))


def quantities() -> dict[str, Quantity]:
    """What a budget can bound, by name: each task's metric and its change first."""
    found: dict[str, Quantity] = {}
    for metric in _metrics():
        found[metric.name] = Quantity(AT_MOST if metric.is_error else AT_LEAST, _SHARES)
        found[metric.change] = Quantity(AT_MOST, _SHARES)
    return found | _OF_ALL


def quality_names() -> frozenset[str]:
    """The names of those that say how good answers are."""
    return frozenset({AGREEMENT, *(name for each in _metrics() for name in (each.name, each.change))})


@dataclass(frozen=True)
class Limit:
    """One term of a budget.

    Attributes:
        metric: one of `quantities`.
        bound: a fraction, bytes, or ms.
        text: as it was written.
    """

    metric: str
    bound: float
    text: str

    def excess(self, value: float) -> float:
        """By how much a value misses the bound, as a share of it (of 1 where the bound is 0); 0 where it is met."""
        if math.isnan(value):
            return math.inf
        over = value - self.bound if quantities()[self.metric].direction == AT_MOST else self.bound - value
        return max(0.0, over) / (self.bound or 1.0)


@dataclass(frozen=True)
class Budget:
    """Limits that all hold.

    Attributes:
        limits: at least one, each of another metric.
    """

    limits: tuple[Limit, ...]

    def __str__(self) -> str:
        return ", ".join(limit.text for limit in self.limits)

    def limit(self, metric: str) -> Limit | None:
        """The limit of a metric, if there is one."""
        return next((limit for limit in self.limits if limit.metric == metric), None)

    def missed(self, values: Mapping[str, float]) -> tuple[Limit, ...]:
        """The limits that these values do not meet; a value that is not there meets none."""
        return tuple(
            limit for limit in self.limits if limit.metric not in values or limit.excess(values[limit.metric]) > 0
        )

    def distance(self, values: Mapping[str, float]) -> float:
        """How far values are from meeting the budget: the sum of the limits' excesses, 0 where all are met."""
        return sum(limit.excess(values[limit.metric]) if limit.metric in values else math.inf for limit in self.limits)

    def check_task(self, task: str) -> None:
        """Refuse metrics that a task does not have.

        Raises:
            InputError: accuracy of speech, or word errors of something else.
        """
        metric = TASKS[task].metric
        known = (*(() if metric is None else (metric.name, metric.change)), *_OF_ALL)
        for limit in self.limits:
            if limit.metric not in known:
                raise InputError(f"budget: {task} has no {limit.metric}: expected any of {', '.join(known)}")


def parse_budget(text: str) -> Budget:
    """A budget from text, its terms with commas between them.

    Raises:
        InputError: the term that is wrong, and what was expected there.
    """
    limits = [_parse_limit(term.strip()) for term in text.split(",")]
    for number, limit in enumerate(limits):
        if limit.metric in (other.metric for other in limits[:number]):
            raise InputError(f"budget: {limit.metric} is limited twice: expected each metric once")
    return Budget(tuple(limits))


def describe(metric: str, value: float) -> str:
    """A value in the unit that people read: 97.31 %, 2.74 MB, 18.02 ms."""
    units = quantities()[metric].units
    if units is _SIZES:
        return f"{value / 1e6:.2f} MB"
    return f"{value:.2f} ms" if units is _TIMES else f"{value * 100:.2f}%"


def _parse_limit(term: str) -> Limit:
    parts = _TERM.fullmatch(term)
    assert parts is not None  # each of its parts may be empty
    name, sign, amount = parts.groups()
    known = quantities()
    if name not in known:
        guess = did_you_mean(name, known)
        raise InputError(f"budget: unknown metric {name or term!r}: {guess}expected any of {', '.join(known)}")
    metric = known[name]
    if sign != metric.direction:
        raise InputError(f"budget: expected {name}{metric.direction} and a number, found {term!r}")
    found = _AMOUNT.fullmatch(amount)
    if found is None:
        raise InputError(f"budget: expected a number of at least 0 with its unit, as in size<=8MB, found {term!r}")
    number, unit = found.groups()
    if unit not in metric.units:
        units = ", ".join(each or "none" for each in metric.units)
        raise InputError(f"budget: expected one of {units} as the unit of {name}, found {unit or 'none'} in {term!r}")
    bound = float(number) * metric.units[unit]
    if metric.units is _SHARES and bound > 1:
        raise InputError(f"budget: expected {name} as a share of at most 1, or with %, found {term!r}")
    return Limit(name, bound, term)
