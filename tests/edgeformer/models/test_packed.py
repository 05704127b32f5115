"""Several texts in one row answer as each does alone, in every family and task that packs."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from edgeformer.attention.kernels import dense
from edgeformer.models import bert, mobilebert
from edgeformer.models.family import ProgramOptions
from edgeformer.models.packed import packed_program
from edgeformer.models.pooling import CLS, EmbeddingHead
from edgeformer.models.text import text_programs

SIZES: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, tuple[ModuleType, Any]] = {
    "bert": (bert, bert.BertConfig(**SIZES)),
    "distilbert": (bert, bert.BertConfig(**SIZES, type_vocab_size=0, distilbert=True)),
    "mobilebert": (
        mobilebert,
        mobilebert.MobileBertConfig(**SIZES, embedding_size=16, intra_bottleneck_size=32, num_feedforward_networks=2),
    ),
}
TASKS = {
    "text-classification": 3,
    "text-scoring": 1,
    "text-embedding": 0,
    "question-answering": 0,
    "token-classification": 5,
}
LENGTHS = (5, 8, 3, 12, 6)
NEAR = 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", [*TASKS, "first token"])
def test_a_row_answers_as_each_text_alone(family: str, task: str) -> None:
    module, config = FAMILIES[family]
    torch.manual_seed(0)
    name = "text-embedding" if task == "first token" else task
    model = module.build(config, name, TASKS[name], dense).requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if task == "first token":
        model.set_head(EmbeddingHead((CLS,), normalize=False), 48)
    programs = text_programs(model, config, ProgramOptions(seq_lens=(8, 48)))
    packed = packed_program(programs)
    assert packed is not None
    inputs = dict(zip((spec.name for spec in packed.inputs), packed.example_inputs(), strict=True))
    row = {name: torch.zeros_like(tensor) for name, tensor in inputs.items()}
    alone, starts, start = [], [], 0
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(1, 100, (1, length), dtype=torch.int32)
        types = (torch.arange(length, dtype=torch.int32) > length // 2).int()[None]
        where = slice(start, start + length)
        row["input_ids"][0, where], row["position_ids"][0, where] = ids, torch.arange(length)
        row["texts"][0, number, where] = 1
        if "token_type_ids" in row:
            row["token_type_ids"][0, where] = types
        alone.append(model(ids, torch.ones_like(ids), *([types] if "token_type_ids" in row else []))[0])
        starts.append(start)
        start += length
    (found,) = packed.module(*row.values())
    assert found.shape == packed.outputs[0].shape
    for number, (expected, start, length) in enumerate(zip(alone, starts, LENGTHS, strict=True)):
        own = found[:, start : start + length] if model.pooling is None else found[number : number + 1]
        assert (own - expected).abs().max() < NEAR
        assert expected.abs().max() > NEAR


def test_lengths_that_are_alike_have_no_rows() -> None:
    module, config = FAMILIES["bert"]
    model = module.build(config, "text-embedding", 0, dense)
    assert packed_program(text_programs(model, config, ProgramOptions(seq_lens=(16, 48)))) is None


def test_what_is_pooled_otherwise_or_takes_more_has_no_rows() -> None:
    module, config = FAMILIES["bert"]
    options = ProgramOptions(seq_lens=(8, 48))
    model = module.build(config, "text-embedding", 0, dense)
    for poolings in (("max",), ("cls", "mean"), ("lasttoken",)):
        model.set_head(EmbeddingHead(poolings), 48)
        assert packed_program(text_programs(model, config, options)) is None
    assert packed_program(text_programs(module.build(config, "fill-mask", 0, dense), config, options)) is None


def test_calibration_inputs_are_rows_of_one_text() -> None:
    module, config = FAMILIES["bert"]
    model = module.build(config, "text-embedding", 0, dense).requires_grad_(False)
    ids = torch.tensor([[5, 6, 7, 0, 0, 0, 0, 0]], dtype=torch.int32)
    mask = (ids > 0).int()
    programs = text_programs(model, config, ProgramOptions(seq_lens=(8, 48)))
    padded = [torch.nn.functional.pad(each, (0, 40)) for each in (ids, mask, 0 * ids)]
    packed = packed_program((programs[0], replace(programs[1], calibration=(tuple(padded),))))
    assert packed is not None
    ((row, positions, texts, _),) = packed.calibration
    assert row[0, :4].tolist() == [5, 6, 7, 0]
    assert positions[0, :4].tolist() == [0, 1, 2, 0]
    assert texts.sum() == mask.sum()
    (found,) = packed.module(row, positions, texts, 0 * row)
    assert (found[:1] - model(ids, mask, 0 * ids)[0]).abs().max() < NEAR
