"""What answers to labelled data are worth, by class and over sets of labels.

The definitions are scikit-learn's; where a quotient has nothing to divide by it is 0, as there by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """One label's quality; `support`: how many examples have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int

    def to_json(self) -> dict[str, Any]:
        """The entry of `eval --json`."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class ClassReport:
    """Precision, recall and F1 by class, and who was taken for whom.

    Attributes:
        scores: of the labels that occur in the data or in the answers, in the order of the labels.
        confusion: (K, K) int64: how many examples of the row's label got the column's, in the order of `scores`.
    """

    scores: tuple[ClassScore, ...]
    confusion: Counts

    @property
    def macro_f1(self) -> float:
        """The mean over the classes."""
        return float(np.mean([score.f1 for score in self.scores]))

    @property
    def weighted_f1(self) -> float:
        """The mean over the examples."""
        return float(np.average([each.f1 for each in self.scores], weights=[each.support for each in self.scores]))

    def most_confused(self, count: int) -> list[tuple[str, str, int]]:
        """The `count` most frequent mistakes: the label, what it was taken for, how often."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, wrong.shape)
        names = [score.label for score in self.scores]
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(names[row], names[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]

    def to_json(self) -> dict[str, Any]:
        """The entries of `eval --json`."""
        return {
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "classes": [score.to_json() for score in self.scores],
            "confusion": {"labels": [score.label for score in self.scores], "counts": self.confusion.tolist()},
        }


def class_report(truth: Sequence[int], given: Sequence[int], labels: Sequence[str]) -> ClassReport:
    """Compare answers with the truth, both as indices of the labels, at least one of each."""
    present = sorted({*truth, *given})
    place = {index: number for number, index in enumerate(present)}
    confusion = np.zeros((len(present), len(present)), np.int64)
    np.add.at(confusion, ([place[index] for index in truth], [place[index] for index in given]), 1)
    hits, answered, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return ClassReport(_scores([labels[index] for index in present], hits, answered, support), confusion)


@dataclass(frozen=True)
class LabelSetReport:
    """Quality of answers that are sets of labels.

    Attributes:
        subset_accuracy: the fraction of examples whose set is right as a whole.
        micro_f1: over all decisions on all labels.
        macro_f1: the mean over the labels.
        samples_f1: the mean over the examples.
        scores: of every label.
    """

    subset_accuracy: float
    micro_f1: float
    macro_f1: float
    samples_f1: float
    scores: tuple[ClassScore, ...]

    def to_json(self) -> dict[str, Any]:
        """The entries of `eval --json`."""
        return {
            "subset_accuracy": self.subset_accuracy,
            "micro_f1": self.micro_f1,
            "macro_f1": self.macro_f1,
            "samples_f1": self.samples_f1,
            "classes": [score.to_json() for score in self.scores],
        }


def label_set_report(truth: NDArray[np.bool_], given: NDArray[np.bool_], labels: Sequence[str]) -> LabelSetReport:
    """Compare sets of labels (N, C), N and C at least 1."""
    both = truth & given
    hits, answered, support = (each.sum(axis=0) for each in (both, given, truth))
    scores = _scores(labels, hits, answered, support)
    return LabelSetReport(
        subset_accuracy=float((truth == given).all(axis=1).mean()),
        micro_f1=float(_f1(hits.sum(), answered.sum(), support.sum())),
        macro_f1=float(np.mean([score.f1 for score in scores])),
        samples_f1=float(_f1(both.sum(axis=1), given.sum(axis=1), truth.sum(axis=1)).mean()),
        scores=scores,
    )


def _scores(labels: Sequence[str], hits: Counts, answered: Counts, support: Counts) -> tuple[ClassScore, ...]:
    columns = (_quotient(hits, answered), _quotient(hits, support), _f1(hits, answered, support))
    rows = zip(labels, *(column.tolist() for column in columns), support.tolist(), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _f1(hits: Any, answered: Any, support: Any) -> NDArray[np.float64]:
    """2 P R / (P + R), as 2 hits / (answered + support)."""
    return _quotient(2 * hits, answered + support)


def _quotient(above: Any, below: Any) -> NDArray[np.float64]:
    safe: NDArray[np.float64] = np.divide(above, np.maximum(below, 1), dtype=np.float64)
    return safe
