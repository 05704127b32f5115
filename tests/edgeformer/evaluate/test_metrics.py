"""Metrics against values that scikit-learn 1.9.1 and SciPy 1.17.1 gave."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer.evaluate.embeddings import pearson, spearman
from edgeformer.evaluate.metrics import class_report, label_set_report

TRUTH = [0, 0, 0, 1, 1, 2, 2, 2, 2, 4]
GIVEN = [0, 1, 0, 1, 1, 2, 0, 2, 3, 2]


def test_classes() -> None:
    """precision_recall_fscore_support(TRUTH, GIVEN, zero_division=0), f1_score, confusion_matrix."""
    found = class_report(TRUTH, GIVEN, ["a", "b", "c", "d", "e", "never"])
    assert [each.label for each in found.scores] == ["a", "b", "c", "d", "e"]
    assert [each.precision for each in found.scores] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 0, 0])
    assert [each.recall for each in found.scores] == pytest.approx([2 / 3, 1, 0.5, 0, 0])
    assert [each.f1 for each in found.scores] == pytest.approx([2 / 3, 0.8, 0.5714285714285714, 0, 0])
    assert [each.support for each in found.scores] == [3, 2, 4, 0, 1]
    assert found.macro_f1 == pytest.approx(0.4076190476190476)
    assert found.weighted_f1 == pytest.approx(0.5885714285714286)
    assert found.confusion.tolist() == [
        [2, 1, 0, 0, 0],
        [0, 2, 0, 0, 0],
        [1, 0, 2, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
    ]
    assert found.most_confused(3) == [("a", "b", 1), ("c", "a", 1), ("c", "d", 1)]
    assert class_report([0, 1], [0, 1], ["a", "b"]).most_confused(3) == []


def test_label_sets() -> None:
    """The same functions on indicator matrices, and accuracy_score."""
    truth = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], bool)
    given = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]], bool)
    found = label_set_report(truth, given, ["a", "b", "c", "d"])
    assert [each.precision for each in found.scores] == [1, 1, 1, 0]
    assert [each.recall for each in found.scores] == [1, 0.5, 0.5, 0]
    assert [each.f1 for each in found.scores] == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert found.subset_accuracy == 0.6
    assert found.micro_f1 == pytest.approx(0.7272727272727273)
    assert found.macro_f1 == pytest.approx(0.5833333333333333)
    assert found.samples_f1 == pytest.approx(0.6333333333333333)


def test_correlations() -> None:
    """spearmanr, with ties, and pearsonr."""
    first, second = np.array([0.1, 0.4, 0.4, 0.9, 0.2, 0.7]), np.array([1, 2, 3, 5, 2, 2.5])
    assert spearman(first, second) == pytest.approx(0.8676470588235294, abs=1e-14)
    assert pearson(first, second) == pytest.approx(0.8671658032101319, abs=1e-14)
    assert spearman(first, np.exp(first)) == 1
    assert spearman(first, np.full(6, 0.1)) is None
    assert pearson(np.full(7, 0.1), np.arange(7.0)) is None
