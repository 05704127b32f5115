"""What ships in the zoo: small, in the public format, and as good as its card says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.zoo import ZOO
from tools.zoo.clinc150_data import load_clinc150
from tools.zoo.train_clinc150 import evaluate

NAME = "clinc150-mobilebert"
SIX_MB = 6_000_000

COMMANDS = {
    "turn the lights off in the kitchen": "smart_home",
    "how much money is in my savings account": "balance",
    "set a timer for ten minutes": "timer",
    "wake me up at seven": "alarm",
    "what's the weather like tomorrow": "weather",
}


def test_clinc150_is_small_and_complete() -> None:
    folder = ZOO[NAME].folder
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) <= SIX_MB
    card = (folder / "README.md").read_text()
    assert "Larson" in card
    assert "CC BY 3.0" in card
    assert "Apache-2.0" in card


def test_clinc150_opens_by_name() -> None:
    checkpoint = open_checkpoint(NAME)
    assert checkpoint.source.id == "zoo:clinc150-mobilebert"
    assert (checkpoint.task, checkpoint.activation, len(checkpoint.labels)) == ("text-classification", "softmax", 150)
    assert checkpoint.license == "apache-2.0"
    assert checkpoint.config.max_position_embeddings >= 128
    _, keys = load_module(checkpoint, KERNELS["dense"])
    assert keys.unused == ()


@pytest.mark.parametrize("seq_len", [16, 128])
def test_clinc150_in_transformers_gives_the_same(seq_len: int) -> None:
    checkpoint = open_checkpoint(NAME)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    reference = transformers.MobileBertForSequenceClassification.from_pretrained(
        ZOO[NAME].folder, dtype=torch.float32
    ).eval()
    assert tuple(reference.config.id2label[i] for i in range(150)) == checkpoint.labels
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json or "")
    tokenizer.enable_padding(length=seq_len)
    encodings = tokenizer.encode_batch(list(COMMANDS))
    ids = torch.tensor([e.ids for e in encodings]).int()
    mask = torch.tensor([e.attention_mask for e in encodings]).int()
    with torch.no_grad():
        (ours,) = module(ids, mask, torch.zeros_like(ids))
        theirs = reference(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert [checkpoint.labels[i] for i in ours.argmax(1)] == list(COMMANDS.values())


def test_transformers_reads_the_tokenizer() -> None:
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(ZOO[NAME].folder / "tokenizer.json"))
    ours = Tokenizer.from_str(open_checkpoint(NAME).tokenizer_json or "")
    for text in (*COMMANDS, "Zürich \U0001f600 你好"):
        assert theirs(text)["input_ids"] == ours.encode(text).ids


@pytest.mark.slow
def test_clinc150_is_as_accurate_as_its_card_says(assets: Path) -> None:
    data = load_clinc150(assets / "text" / "clinc150" / "data_small.json")
    stated = re.search(r"test, 4500 in-scope sentences \| ([\d.]+)%", (ZOO[NAME].folder / "README.md").read_text())
    assert stated is not None
    accuracy = evaluate(NAME, data.test)
    assert accuracy >= 0.85
    assert accuracy == pytest.approx(float(stated.group(1)) / 100, abs=1e-3)


def test_labels_are_the_data_sets_intents(assets: Path) -> None:
    raw = json.loads((assets / "text" / "clinc150" / "data_small.json").read_text())
    assert open_checkpoint(NAME).labels == tuple(sorted({intent for _, intent in raw["train"]}))
