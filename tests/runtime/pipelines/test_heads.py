"""From outputs to answers: activations, order, the best labels, and outputs that are no numbers."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines.results import classify, embed, sigmoid, softmax


def test_activations_do_not_overflow() -> None:
    logits = np.array([1e4, -1e4, 0.0])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(softmax(logits), [1, 0, 0])
        np.testing.assert_array_equal(sigmoid(logits), [1, 0, 0.5])
    np.testing.assert_allclose(sigmoid(np.array([2.0, -2.0])), [0.8807970779778823, 0.11920292202211755], rtol=1e-15)
    np.testing.assert_allclose(softmax(np.array([1.0, 2.0])), [0.2689414213699951, 0.7310585786300049], rtol=1e-14)


def test_best_first_and_equal_scores_in_the_order_of_the_labels() -> None:
    head = Classification(("a", "b", "c", "d"), "softmax")
    result = classify({"logits": np.array([[1, 2, 1, 2]], np.float32)}, head, truncated=True)
    assert result.labels == ("b", "d", "a", "c")
    assert result.truncated
    assert result.top(3).labels == ("b", "d", "a")
    assert result.top(3).scores == result.scores[:3]
    assert result.top(9) == result
    with pytest.raises(InputError, match="at least 1 label, found 0"):
        result.top(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_answer(value: float) -> None:
    output = {"logits": np.array([[1, value]], np.float32)}
    for answer in (lambda: classify(output, Classification(("a", "b"), "softmax")), lambda: embed(output)):
        with pytest.raises(EngineError, match="output 'logits' holds NaN or infinity"):
            answer()
