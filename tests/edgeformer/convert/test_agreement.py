"""Agreement with the source: answers, their divergence, boundaries, accuracy, and cosines that do not mislead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edgeformer.convert.agreement import Agreement, Reference, agreement, compare_embeddings, compare_labels
from edgeformer_runtime.bundle.manifest import Classification, Embedding
from edgeformer_runtime.engines import Tensor

SOFTMAX = Classification(("no", "yes"), "softmax")
SIGMOID = Classification(("a", "b"), "sigmoid")


class Table:
    """An engine that gives the rows of a table."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = rows

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        return {"logits": np.array([self.rows[int(inputs["x"][0])]], np.float32)}


def judged(
    head: Classification | Embedding,
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    labels: Sequence[int] = (),
) -> Agreement:
    """Of pairs of the source's row and the bundle's."""
    references = [
        Reference(
            "main",
            {"x": np.array([index])},
            {"logits": np.array([given], np.float32)},
            f"input {index}",
            labels[index] if labels else None,
        )
        for index, (given, _) in enumerate(pairs)
    ]
    compare = compare_embeddings if isinstance(head, Embedding) else compare_labels
    return agreement(Table([own for _, own in pairs]), references, head, compare)  # type: ignore[arg-type]


def odds(ratio: float) -> tuple[float, float]:
    """Logits of two labels whose probabilities have this ratio."""
    return math.log(ratio), 0.0


def test_probabilities_that_move_are_the_divergence() -> None:
    found = judged(SOFTMAX, [(odds(3), odds(1)), (odds(3), odds(3))])
    # 3/4 against 1/2, and nothing.
    assert found.divergence == pytest.approx(0.125)
    assert (found.n, found.sample) == (2, "input 0")


def test_an_answer_that_changes_near_a_boundary_is_not_lost() -> None:
    found = judged(SOFTMAX, [(odds(1.9), odds(0.9)), (odds(2.1), odds(0.9)), (odds(99), odds(98))])
    assert (found.top1, found.near, found.lost) == (pytest.approx(1 / 3), 1, 1)
    assert found.sample == "input 1"


def test_a_model_that_is_never_sure_has_boundaries_of_its_own() -> None:
    """All margins are below log 2, but for this model .4 is clear: a quarter of the clearest."""
    found = judged(SOFTMAX, [((0.4, 0), (0.4, 0)), ((0.3, 0), (-0.1, 0)), ((0.1, 0), (-0.1, 0))])
    assert (found.near, found.lost, found.sample) == (1, 1, "input 1")


def test_of_sigmoid_each_label_counts() -> None:
    # The best label is the same everywhere; the second falls below one half, once from near it and once from far.
    found = judged(SIGMOID, [((4, 0.1), (4, -0.1)), ((4, 2), (4, -0.1)), ((4, -3), (4, -3))])
    assert (found.top1, found.near, found.lost) == (pytest.approx(1 / 3), 1, 1)
    assert found.sample == "input 1"


def test_outputs_near_zero_do_not_decide_the_cosine() -> None:
    found = judged(SOFTMAX, [((5, -5), (5, -5)), ((0.05, -0.05), (-0.05, 0.05))])
    assert found.cosine == pytest.approx(1, abs=1e-3)
    assert found.lost == 0


def test_accuracy_before_and_after() -> None:
    pairs = [((2, 0), (2, 0)), ((2, 0), (0, 2)), ((0, 2), (2, 0)), ((0, 2), (0, 2))]
    metric = judged(SOFTMAX, pairs, labels=(0, 0, 0, 1)).metric
    assert metric is not None
    assert (metric.n, metric.before, metric.after, metric.changed) == (4, 0.75, 0.75, 2)
    assert metric.to_json() == {"metric": "accuracy", "n": 4, "before": 0.75, "after": 0.75, "changed": 2}
    assert judged(SOFTMAX, pairs).metric is None


def test_an_embedding_has_cosines_alone() -> None:
    found = judged(Embedding(2, normalized=True), [((3, 4), (3, 4)), ((3, 4), (4, 3))])
    assert (found.n, found.top1, found.lost, found.sample) == (2, None, None, "input 1")
    assert found.cosine == pytest.approx(24 / 25) and found.mean_cosine == pytest.approx(49 / 50)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_lost(value: float) -> None:
    found = judged(SOFTMAX, [(odds(9), odds(9)), (odds(1), (value, 0))])
    assert (found.lost, found.cosine, found.broken, found.sample) == (1, None, 1, "input 1")
    broken = judged(Embedding(2, normalized=True), [((3, 4), (3, 4)), ((3, 4), (value, 0))])
    assert (broken.cosine, broken.mean_cosine, broken.broken, broken.sample) == (0.0, 0.5, 1, "input 1")


def test_an_embedding_of_zeros_is_no_other_embeddings_equal() -> None:
    found = judged(Embedding(2, normalized=False), [((0, 0), (0, 0)), ((3, 4), (0, 0))])
    assert (found.cosine, found.mean_cosine, found.sample) == (0.0, 0.5, "input 1")


def test_one_label_is_always_the_best() -> None:
    found = judged(Classification(("only",), "softmax"), [((1.0,), (2.0,))])
    assert (found.top1, found.near, found.lost, found.divergence) == (1.0, 0, 0, 0.0)
