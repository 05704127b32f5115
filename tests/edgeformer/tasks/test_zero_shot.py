"""Labels that a call names, of a model of natural language inference: those of transformers' pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from starlette.testclient import TestClient
from typer.testing import CliRunner

from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Classification
from edgeformer_runtime.cli.app import app
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.tasks.programs import ZeroShotOptions, entailment_of
from tests.checkpoint_factory import tokenizer, vocabulary

LABELS = ("light", "\u5929\u6c14", "bank, or music", "on \U0001f44d\U0001f3fd")
TEXTS = (
    "turn the lights off in the living room",
    "na\u00efve cafe\u0301 \U0001f600",
    "\u05e9\u05dc\u05d5\u05dd \u4f60\u597d turn on",
    "please remind me to call the bank " * 9,
)
TEMPLATE = "it is about {}."


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint whose entailment is its last label, and its bundle."""
    folder = tmp_path_factory.mktemp("inference")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(dict.fromkeys(vocabulary())),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        id2label={0: "contradiction", 1: "neutral", 2: "Entailment"},
        label2id={"contradiction": 0, "neutral": 1, "Entailment": 2},
    )
    source = folder / "source"
    transformers.BertForSequenceClassification(config).eval().save_pretrained(source)
    tokenizer().save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 64}')
    (row,) = convert(ConvertOptions(str(source), folder / "out", ("onnx",), ("fp32",), (64,)))
    assert row.problems == ()
    return source, row.path


@pytest.mark.slow
def test_labels_of_a_call_are_transformers_own(inference: tuple[Path, Path]) -> None:
    source, bundle = inference
    reference: Any = transformers.pipeline("zero-shot-classification", model=str(source))
    with load(bundle) as pipeline, Bundle.open(bundle) as opened, IsolatedPipeline(opened) as isolated:
        for text in TEXTS:
            for labels in (LABELS, LABELS[:1]):
                for multi in (False, True):
                    given = reference(text, list(labels), hypothesis_template=TEMPLATE, multi_label=multi)
                    options: dict[str, Any] = {"template": TEMPLATE, "multi_label": multi}
                    found = pipeline(text, labels=list(labels), **options)
                    assert list(found.labels) == given["labels"]
                    assert list(found.scores) == pytest.approx(given["scores"], abs=1e-4)
                    assert isolated(text, labels=labels, **options).scores == found.scores
        assert [each.label for each in pipeline([TEXTS[0]], labels=LABELS)] == [
            reference(TEXTS[0], list(LABELS))["labels"][0]
        ]
        assert pipeline(TEXTS[3], labels=LABELS).truncated
        assert set(pipeline(TEXTS[0]).labels) == {"contradiction", "neutral", "Entailment"}
        with pytest.raises(InputError, match="option of text-classification 'label': did you mean labels"):
            pipeline(TEXTS[0], label=LABELS)
        with pytest.raises(InputError, match="labels of a call take one text"):
            pipeline((TEXTS[0], TEXTS[1]), labels=LABELS)


@pytest.mark.slow
def test_run_and_serve(inference: tuple[Path, Path]) -> None:
    _, bundle = inference
    with load(bundle) as pipeline:
        expected = pipeline(TEXTS[0], labels=("light", "bank")).to_json()
    asked = ["run", str(bundle), TEXTS[0], "--labels", "light, bank", "--json"]
    assert json.loads(CliRunner().invoke(app, asked).stdout) == [{"input": TEXTS[0], **expected}]
    for arguments, message in (
        (["--template", "x {}"], "--template and --multi-label belong to --labels"),
        (["--labels", "a", "--template", "x"], "template: expected a sentence with {} for the label, found 'x'"),
        (["--labels", ","], "labels: expected 1 to 1000, none of them empty"),
    ):
        result = CliRunner().invoke(app, ["run", str(bundle), TEXTS[0], *arguments])
        assert message in str(result.exception)
    service = Service(lambda: load(bundle), ServeOptions())
    with TestClient(make_app(service), base_url="http://localhost") as client:
        answer = client.post("/v1/answer?labels=light&labels=bank", json={"text": TEXTS[0]}).json()
        assert {key: answer[key] for key in expected} == expected
        assert len(client.post("/v1/answer", json={"text": TEXTS[0]}).json()["labels"]) == 3
        for query in ("labels=", "labels=a&template=x", "labels=a&multi_label=perhaps"):
            assert client.post(f"/v1/answer?{query}", json={"text": TEXTS[0]}).status_code == 422


def test_other_models_have_no_labels_of_a_call() -> None:
    assert entailment_of(Classification(("ENTAILMENT", "not"), "softmax")) == 0
    with pytest.raises(InputError, match=r"need a model of natural language inference.*found.*'on', 'off'"):
        entailment_of(Classification(("on", "off"), "softmax"))
    with pytest.raises(InputError, match="expected 1 to 1000"):
        ZeroShotOptions(("a", ""))
