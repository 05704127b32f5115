"""Text pipelines: answers, batches, threads, and outputs that are no numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import HIDDEN, LABELS, TABLE, WEIGHT, TinyEngine

from edgeformer_runtime import load
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult


def test_classification(tiny: Path) -> None:
    engine = TinyEngine()
    with load(tiny, engine=engine) as pipeline:
        result = pipeline("hello")
    assert engine.closed
    assert isinstance(result, ClassificationResult)
    logits = TABLE[[2, 9, 3]].mean(0) @ WEIGHT
    expected = np.exp(logits) / np.exp(logits).sum()
    assert dict(zip(result.labels, result.scores, strict=True)) == pytest.approx(
        dict(zip(LABELS, expected, strict=True)), rel=1e-5
    )
    assert list(result.scores) == sorted(result.scores, reverse=True)
    assert (result.label, result.score) == (result.labels[0], result.scores[0])
    assert result.to_json() == {"labels": list(result.labels), "scores": list(result.scores)}
    assert not result.truncated
    cost = result.statistics
    assert min(cost.preprocess_ms, cost.run_ms, cost.postprocess_ms) > 0
    assert cost.peak_rss_bytes > 10 << 20


def test_embedding(tiny_embedder: Path) -> None:
    with load(tiny_embedder, engine=TinyEngine(embeds=True)) as pipeline:
        result = pipeline("hello")
    assert isinstance(result, EmbeddingResult)
    mean = TABLE[[2, 9, 3]].mean(0)
    np.testing.assert_allclose(result.vector, mean / np.linalg.norm(mean), rtol=1e-5)
    assert result.vector.dtype == np.float32
    assert result.vector.shape == (HIDDEN,)
    assert result.to_json() == {"embedding": result.vector.tolist()}


def test_one_input_or_a_list(tiny: Path) -> None:
    pipeline = load(tiny, engine=TinyEngine())
    one = pipeline("hello")
    pair = pipeline(("hello", "turn"))
    ids = pipeline([2, 9, 3])
    assert ids.scores == one.scores
    batch = pipeline(["hello", ("hello", "turn"), [2, 9, 3], ""])
    assert [result.scores for result in batch] == [one.scores, pair.scores, ids.scores, pipeline("").scores]
    assert pipeline([]) == []
    assert pipeline("hello " * 20).truncated
    with pytest.raises(InputError, match=r"input 1 of 2: .*found float"):
        pipeline(["hello", 1.5])


def test_several_threads_get_their_own_answers(tiny: Path) -> None:
    pipeline = load(tiny, engine=TinyEngine())
    texts = [" ".join(words) for words in (["hello"], ["turn", "off"], ["the", "lights"], ["on"] * 12)]
    expected = {text: pipeline(text).scores for text in texts}
    with ThreadPoolExecutor(4) as pool:
        for text, result in zip(texts * 100, pool.map(pipeline, texts * 100), strict=True):
            assert result.scores == expected[text]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_no_numbers(tiny: Path, tiny_embedder: Path, value: float) -> None:
    for folder, embeds in ((tiny, False), (tiny_embedder, True)):
        pipeline = load(folder, engine=TinyEngine(embeds, offset=value))
        with pytest.raises(EngineError, match="output 'output' holds NaN or infinity"):
            pipeline("hello")
