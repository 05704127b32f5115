"""Masked tokens from a checkpoint to answers: those of transformers' pipeline, label by label, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from starlette.testclient import TestClient
from typer.testing import CliRunner

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.evaluate.evaluate import evaluate
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.app import app
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service
from edgeformer_runtime.tasks.tokens import FillOptions
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import tokenizer, vocabulary

TEXTS = (
    "turn the [MASK] off",
    "[MASK]",
    "na\u00efve cafe\u0301 [MASK] \U0001f600\U0001f44d\U0001f3fd",
    "\u05e9\u05dc\u05d5\u05dd [MASK] \u4f60\u597d turn [MASK] on",
)
TARGETS = ("lights", "Bank", "##s")


def checkpoint(folder: Path, family: str, head: str = "MaskedLM", **changes: Any) -> Path:
    torch.manual_seed(0)
    shared: dict[str, Any] = {"vocab_size": len(dict.fromkeys(vocabulary())), "max_position_embeddings": 64} | changes
    narrow = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    sizes = {
        "Bert": narrow | {"initializer_range": 0.4},
        "DistilBert": {"dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48, "initializer_range": 0.4},
        "MobileBert": narrow | {"embedding_size": 16, "intra_bottleneck_size": 16, "initializer_range": 0.1},
    }[family]
    model = getattr(transformers, f"{family}For{head}")(getattr(transformers, f"{family}Config")(**(sizes | shared)))
    for name, parameter in model.named_parameters():
        if "bias" in name and ("predictions" in name or "vocab_" in name):
            torch.nn.init.normal_(parameter)
    model.eval().save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": f"{family}Tokenizer"}))
    return folder


@pytest.mark.parametrize(
    ("family", "head", "changes"),
    [
        ("Bert", "MaskedLM", {}),
        ("Bert", "MaskedLM", {"tie_word_embeddings": False, "hidden_act": "relu"}),
        ("Bert", "PreTraining", {}),
        ("DistilBert", "MaskedLM", {"activation": "relu"}),
        ("MobileBert", "MaskedLM", {}),
        ("MobileBert", "MaskedLM", {"hidden_act": "gelu"}),
    ],
)
def test_logits_are_the_public_implementations(tmp_path: Path, family: str, head: str, changes: Any) -> None:
    source = checkpoint(tmp_path / "source", family, head, **changes)
    opened = open_checkpoint(str(source), task=None if head == "MaskedLM" else "fill-mask")
    assert opened.task == "fill-mask"
    module, report = load_module(opened, KERNELS["dense"])
    # The head of the next sentence with its pooler, and a second bias of a decoder with its own.
    unused = 4 if head == "PreTraining" else 0 if changes.get("tie_word_embeddings", True) else 1
    assert len(report.unused) == unused
    published = opened.family.publish(opened.family.rename(opened.load_weights()), opened.config)
    assert published.keys() == opened.load_weights().keys()
    reference: Any = getattr(transformers, f"{family}For{head}").from_pretrained(source).eval()
    ids = tokenizer().encode("turn the [MASK] off").ids
    inputs = [torch.zeros(1, 16, dtype=torch.int32) for _ in range(4)]
    inputs[0][0, : len(ids)], inputs[1][0, : len(ids)], inputs[2][0, 3] = torch.tensor(ids), 1, 1
    with torch.no_grad():
        given = reference(torch.tensor([ids]))
        expected = (given.logits if head == "MaskedLM" else given.prediction_logits)[0, 3]
        found = module(*inputs[: 3 if family == "DistilBert" else 4])[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and its bundle."""
    folder = tmp_path_factory.mktemp("masks")
    source = checkpoint(folder / "source", "DistilBert")
    (row,) = convert(ConvertOptions(str(source), folder / "out", ("onnx",), ("fp32",), (12, 24)))
    assert row.problems == () and row.agreement is not None and row.agreement.n > 40
    return source, row.path


@pytest.mark.slow
def test_tokens_are_transformers_own(filler: tuple[Path, Path]) -> None:
    source, bundle = filler
    reference: Any = transformers.pipeline("fill-mask", model=str(source))
    with load(bundle) as pipeline, Bundle.open(bundle) as opened, IsolatedPipeline(opened) as isolated:
        assert verify(opened).ok
        for text in TEXTS:
            for options, given in (
                (FillOptions(7), reference(text, top_k=7)),
                (FillOptions(targets=TARGETS), reference(text, targets=list(TARGETS))),
            ):
                rows = given if isinstance(given[0], list) else [given]
                expected = [(one["token"], one["token_str"], mask) for mask, row in enumerate(rows) for one in row]
                result = pipeline.run(text, options)
                assert [(fill.token, fill.text, fill.mask) for fill in result.fills] == expected
                scores = [one["score"] for row in rows for one in row]
                assert [fill.score for fill in result.fills] == pytest.approx(scores, abs=1e-4)
                assert ["mask" in fill for fill in result.to_json()["fills"]] == [len(rows) > 1] * len(expected)
                assert isolated.run(text, options).fills == result.fills
        assert pipeline("[MASK] " + "turn the lights off " * 9).truncated
        for raw, message in (
            ("turn", r"expected a text with \[MASK\], found none in it"),
            ("turn the lights off " * 9 + "[MASK]", "found none in the first 24 tokens of the text"),
            (("a", "b"), "expected one text, found a pair"),
        ):
            with pytest.raises(InputError, match=message):
                pipeline(raw)
        with pytest.raises(InputError, match="one token each, found 'lights off', whose tokens are 'lights', 'off'"):
            pipeline.run(TEXTS[0], FillOptions(targets=("lights off",)))


@pytest.mark.slow
def test_run_serve_and_eval(filler: tuple[Path, Path], tmp_path: Path) -> None:
    source, bundle = filler
    with load(bundle) as pipeline:
        expected = pipeline(TEXTS[0]).to_json()["fills"]
        assert len(expected) == 5
    result = CliRunner().invoke(app, ["run", str(bundle), TEXTS[0], "--json"])
    assert json.loads(result.stdout) == [{"input": TEXTS[0], "fills": expected}]
    asked = ["run", str(bundle), TEXTS[0], "--targets", "lights, bank", "--top", "1"]
    (best,) = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)[0]["fills"]
    assert best["text"] in ("lights", "bank") and best["text"] in CliRunner().invoke(app, asked).stdout
    service = Service(lambda: load(bundle), ServeOptions())
    with TestClient(make_app(service), base_url="http://localhost") as client:
        assert client.post("/v1/answer", json={"text": TEXTS[0]}).json()["fills"] == expected
        chosen = client.post("/v1/answer?targets=lights&targets=bank&top=1", json={"text": TEXTS[0]}).json()
        assert chosen["fills"] == [best]
        assert client.post("/v1/answer?top=101", json={"text": TEXTS[0]}).status_code == 422
    data = tmp_path / "masked.csv"
    right = expected[0]["text"]
    data.write_text(f"text,token\n{TEXTS[0]},{right.upper()}\nturn [MASK] on,?\n", encoding="utf-8")
    with Bundle.open(bundle) as opened:
        found = evaluate(opened, data, source)
        document = found.to_json()
        assert (document["metric"], document["n"], document["agreement"]) == ("accuracy", 2, 1.0)
        assert document["value"] == document["source_value"] >= 0.5 and found.tables()
        data.write_text("text,token\nturn on,x\n")
        with pytest.raises(InputError, match=r"expected a text with \[MASK\] once, and its token"):
            evaluate(opened, data, source)


def test_what_is_no_masked_language_model_is_refused(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", "Bert")
    with pytest.raises(InputError, match="a BertForMaskedLM does fill-mask and has no head for text-classification"):
        open_checkpoint(str(source), task="text-classification")
    assert open_checkpoint(str(source), task="text-embedding").task == "text-embedding"
    (source / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": None})
    )
    with pytest.raises(InputError, match="fill-mask needs a mask_token that is one token, found none"):
        convert(ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32",), (12,)))
