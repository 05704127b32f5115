"""The record of every family is complete, and another author's family takes one new file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.compress.model import open_model, stacks, unit_groups
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.models.config import LAYER_WIDTH_KEYS
from edgeformer.models.family import FAMILIES, family_for
from edgeformer_runtime import load
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.task import TASKS
from tests.checkpoint_factory import save_mobilebert, save_whisper, tokenizer, vocabulary
from tests.edgeformer.compress import tiny

TOY = "tests.edgeformer.models.toy_family:FAMILY"
"""What an entry point of another author's package would name."""

SAVED = {
    "mobilebert": save_mobilebert,
    "distilbert": tiny.save_distilbert,
    "tiny_vit": tiny.save_tinyvit,
    "whisper": save_whisper,
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_record_is_complete(model_type: str) -> None:
    family = FAMILIES[model_type]
    made_by = {"architectures": list(family.classes)} if family.classes else {}
    assert family_for({"model_type": model_type, **made_by}) is family
    assert family.tasks and set(family.tasks) <= set(TASKS)
    assert set(family.width_keys.values()) <= set(LAYER_WIDTH_KEYS)
    assert family.blocks
    if "text-classification" in family.tasks:
        assert model_type in family.classifiers
    assert model_type in family.sizes or family.describe_weights is not None


@pytest.mark.parametrize("model_type", SAVED)
def test_layers_say_what_can_be_removed(model_type: str, tmp_path: Path) -> None:
    model = open_model(str(SAVED[model_type](tmp_path / "model")))
    state = model.module.state_dict()
    found = stacks(model.module)
    layers = {stack.layer_name(number) for stack in found for number in range(len(stack.layers))}
    groups = unit_groups(model.module)
    assert {group.layer for group in groups} == layers
    for group in groups:
        assert group.count * group.slices[-1].size == state[f"{group.layer}.{group.reader}.weight"].shape[1]
    left = {stack.name: range(len(stack.layers)) for stack in found}
    raw, config = model.family.with_layers(model.checkpoint.raw, model.checkpoint.config, left)
    assert model.family.keep_extras(model.family.parse_config(raw), config) == model.checkpoint.config
    assert all(model.family.width_key(layer) in LAYER_WIDTH_KEYS for layer in layers)


def test_another_authors_family_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES.entries, "bag_of_words", TOY)  # type: ignore[attr-defined]
    size = len(dict.fromkeys(vocabulary()))
    source = tmp_path / "checkpoint"
    source.mkdir()
    raw = {"model_type": "bag_of_words", "vocab_size": size, "hidden_size": 16, "id2label": {"0": "no", "1": "yes"}}
    (source / "config.json").write_text(
        json.dumps({**raw, "architectures": ["BagForSequenceClassification"]}), encoding="utf-8"
    )
    tokenizer().save(str(source / "tokenizer.json"))
    generator = torch.Generator().manual_seed(0)
    shapes = {"bag.embeddings.weight": (size, 16), "classifier.weight": (2, 16), "classifier.bias": (2,)}
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(state, source / "model.safetensors")
    (row,) = convert(ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32",), (16,), name="bag"))
    assert row.problems == ()
    ids = torch.tensor(tokenizer().encode("turn the lights off").ids)
    logits = state["bag.embeddings.weight"][ids].mean(0) @ state["classifier.weight"].T + state["classifier.bias"]
    answer = load(row.path)("turn the lights off")
    scores = dict(zip(answer.labels, answer.scores, strict=True))
    assert [scores["no"], scores["yes"]] == pytest.approx(logits.softmax(0).tolist(), abs=1e-5)
    module, _ = load_module(open_checkpoint(str(source)), KERNELS["dense"])
    assert stacks(module) == ()


def test_an_unknown_family_lists_what_there_is() -> None:
    with pytest.raises(InputError, match="unknown model_type 'hyena': expected one of bert, camembert, distilbert"):
        family_for({"model_type": "hyena"})
