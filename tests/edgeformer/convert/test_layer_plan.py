"""Plans of formats per layer: read, written, checked against a module, and carried to the layers of its programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import save_mobilebert, save_whisper

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.layer_plan import (
    LayerPlan,
    plan_of_checkpoint,
    planned,
    quantizable_layers,
    quantized,
    weight_bytes,
)
from edgeformer.models.family import ProgramOptions
from edgeformer_runtime.errors import InputError

POOLER = "mobilebert.pooler.dense"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    checkpoint = open_checkpoint(str(save_mobilebert(tmp_path_factory.mktemp("model"))))
    return load_module(checkpoint, KERNELS["dense"])[0]


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = LayerPlan({"b": "int4", "a": "fp32"}, default="fp16")
    plan.write(tmp_path / "plan.json")
    assert LayerPlan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 2}, "expected version 1, found 2"),
        ({"version": 1, "layer": {}}, "expected an object with"),
        ({"version": 1, "layers": {"a": "int3"}}, "expected one of fp32, fp16, int8, int4 as the format of a"),
        ({"version": 1, "layers": {"a": 8}}, "expected formats by the names of layers"),
        ({"version": 1, "default": "int9"}, "as the format of default, found 'int9'"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, content: dict[str, object], message: str) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        LayerPlan.read(tmp_path / "plan.json")


def test_a_checkpoint_may_hold_a_plan(tmp_path: Path) -> None:
    assert plan_of_checkpoint(tmp_path) is None
    plan = LayerPlan({"classifier": "fp32"})
    (tmp_path / "edgeformer.json").write_text(json.dumps({"version": 1, "quantization": plan.to_json()}))
    assert plan_of_checkpoint(tmp_path) == plan


def test_positions_norms_and_small_tables_have_no_format(module: torch.nn.Module) -> None:
    names = quantizable_layers(module)
    assert {POOLER, "classifier", "mobilebert.embeddings.word_embeddings"} <= names.keys()
    assert not any("position" in name or "token_type" in name or "norm" in name.lower() for name in names)


def test_int4_for_the_rest_means_linear_layers(module: torch.nn.Module) -> None:
    formats = LayerPlan({POOLER: "fp32"}, default="int4").formats(module)
    assert formats[POOLER] == "fp32"
    assert formats["classifier"] == "int4"
    assert formats["mobilebert.embeddings.word_embeddings"] == "int8"


def test_a_layer_that_the_model_lacks_is_named(module: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="no quantizable layer pooler: expected names like mobilebert"):
        LayerPlan({"pooler": "fp32"}).check(module)


def test_programs_know_their_layers_by_the_weights_that_they_share(tmp_path: Path) -> None:
    """Whisper's programs hold its layers under names of their own."""
    checkpoint = open_checkpoint(str(save_whisper(tmp_path)))
    module, _ = load_module(checkpoint, KERNELS["dense"])
    programs = checkpoint.family.programs(module, checkpoint.config, ProgramOptions(audio_positions=(25,)))
    plan = LayerPlan({"decoder.layers.1.encoder_attn.k_proj": "fp32", "decoder.layers.0.fc1": "int4"})
    encode, prefill, decode = planned(programs, module, plan)[:3]
    assert {name for name, found in encode.layer_formats.items() if found != "int8"} == {"k_proj.1"}
    assert {name for name, found in decode.layer_formats.items() if found != "int8"} == {"layers.0.fc1"}
    assert prefill.layer_formats == decode.layer_formats


def test_projections_that_an_export_separates_have_the_format_of_the_whole() -> None:
    checkpoint = open_checkpoint("cifar10-tinyvit")
    module, _ = load_module(checkpoint, KERNELS["dense"])
    programs = checkpoint.family.programs(module, checkpoint.config, ProgramOptions())
    name = "stages.1.blocks.0.attn.qkv"
    (image,) = planned(programs, module, LayerPlan({name: "fp32"}))
    assert [inner for inner, found in image.layer_formats.items() if found == "fp32"] == [
        f"{name}.layers.{number}" for number in range(3)
    ]


@pytest.mark.parametrize(("format", "largest"), [("int8", 127), ("int4", 7)])
@pytest.mark.parametrize("block", [None, 16])
def test_rounding_is_what_numpy_says_by_hand(format: str, largest: int, block: int | None) -> None:
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    values = weight.numpy()
    expected = np.zeros_like(values)
    width = block or 40
    for row in range(5):
        for start in range(0, 40, width):
            part = values[row, start : start + width]
            scale = np.abs(part).max() / largest or 1.0
            expected[row, start : start + width] = np.round(part / scale) * scale
    np.testing.assert_allclose(quantized(weight, format, block).numpy(), expected, rtol=1e-5, atol=1e-7)


def test_sizes_count_scales(module: torch.nn.Module) -> None:
    weight = torch.zeros(10, 21)
    assert [weight_bytes(weight, each) for each in ("fp32", "fp16", "int8", "int4")] == [840, 420, 250, 145]
    all_float = LayerPlan(default="fp32").weight_bytes(module)
    assert all_float == 4 * sum(layer.weight.numel() for layer in quantizable_layers(module).values())
    assert LayerPlan({POOLER: "int8"}, default="fp32").weight_bytes(module) < all_float
