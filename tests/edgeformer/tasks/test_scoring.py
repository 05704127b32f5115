"""Text scoring, the head with one label, from a checkpoint to scores, evaluation and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from starlette.testclient import TestClient

from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.convert.agreement import Reference, compare_scores
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.evaluate.evaluate import evaluate
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Score
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.pipelines.results import ScoreResult, score_of
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import tokenizer, vocabulary

PAIR = ("turn the lights off", "call the bank")


def checkpoint(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    settings = transformers.BertConfig(
        vocab_size=len(dict.fromkeys(vocabulary())),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        num_labels=1,
        **config,
    )
    transformers.BertForSequenceClassification(settings).eval().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def expected(source: Path, *texts: str) -> float:
    """The logit, as transformers has it."""
    model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(source)
    encoding = tokenizer().encode(*texts)
    with torch.no_grad():
        given = model(torch.tensor([encoding.ids]), token_type_ids=torch.tensor([encoding.type_ids]))
    return float(given.logits[0, 0])


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_from_a_checkpoint_to_scores(activation: str, tmp_path: Path) -> None:
    config = {"problem_type": "regression"} if activation == "none" else {}
    source = checkpoint(tmp_path / "source", **config)
    rows = convert(ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32", "dynamic-int8"), (32,)))
    assert [row.problems for row in rows] == [(), ()]
    assert all(row.agreement is not None and row.agreement.divergence is not None for row in rows)
    right = expected(source, *PAIR)
    right = right if activation == "none" else float(torch.tensor(right).sigmoid())
    exact = rows[0].path
    with load(exact) as pipeline, Bundle.open(exact) as bundle, IsolatedPipeline(bundle) as isolated:
        assert pipeline(PAIR).to_json() == {"score": pytest.approx(right, abs=1e-4)}
        assert isolated(PAIR).score == pipeline(PAIR).score
        assert bundle.manifest.postprocessing == Score(activation)
    service = Service(lambda: load(exact), ServeOptions())
    with TestClient(make_app(service), base_url="http://localhost") as client:
        body = {"text": PAIR[0], "pair": PAIR[1]}
        assert client.post("/v1/answer", json=body).json()["score"] == pytest.approx(right, abs=1e-4)
        assert client.post("/v1/answer?top=1", json=body).status_code == 422
    for row in rows:
        with Bundle.open(row.path) as bundle:
            assert verify(bundle).ok
    pairs, texts = tmp_path / "pairs.csv", tmp_path / "texts.csv"
    pairs.write_text("sentence1,sentence2,score\nhello,call,1\nturn,off,2\nthe lights,on,0\n")
    texts.write_text("text,score\nhello,1\nturn the lights off,2\ncall,0\n")
    with Bundle.open(exact) as bundle:
        for data in (pairs, texts):
            found = evaluate(bundle, data, source)
            document = found.to_json()
            assert (document["metric"], document["n"]) == ("spearman", 3)
            assert document["value"] == document["source_value"]
            assert document["largest_difference"] < 1e-4
            assert found.tables()


def test_a_checkpoint_says_how_its_score_is_read(tmp_path: Path) -> None:
    assert open_checkpoint(str(checkpoint(tmp_path / "a"))).activation == "sigmoid"
    regression = checkpoint(tmp_path / "b", problem_type="regression")
    assert (open_checkpoint(str(regression)).task, open_checkpoint(str(regression)).activation) == (
        "text-scoring",
        "none",
    )


def test_scores_of_an_output() -> None:
    output = {"logits": np.array([[-800.0]], np.float32)}
    assert score_of(output, Score("none")).score == -800
    assert score_of(output, Score("sigmoid")).score == 0
    with pytest.raises(EngineError, match="NaN or infinity"):
        score_of({"logits": np.array([[np.nan]], np.float32)}, Score("none"))
    frame = ScoreResult(1.5).to_frame()
    assert ScoreResult.from_frame(*frame, Score("none")).score == 1.5
    with pytest.raises(ValueError, match="its score is none"):
        ScoreResult.from_frame(*frame, Score("sigmoid"))


def test_scores_that_move_are_told_by_their_range() -> None:
    found = [
        (Reference("seq", {}, {}, str(given)), np.array([given + 1.0]), np.array([given])) for given in (0.0, 5.0, 10.0)
    ]
    assert compare_scores(found, 0, Score("none")).divergence == pytest.approx(0.1)
    sure = compare_scores(found, 0, Score("sigmoid"))
    assert sure.sample == "0.0" and sure.divergence == pytest.approx((0.7310586 - 0.5 + 0.0042) / 3, abs=1e-3)
    broken = [(found[0][0], np.array([np.nan]), np.array([0.0]))]
    assert compare_scores(broken, 1, Score("none")).divergence == 1
    assert json.dumps(compare_scores(found, 0, Score("none")).to_json())
