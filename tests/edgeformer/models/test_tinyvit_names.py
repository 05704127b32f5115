"""TinyViT checkpoints under the names of transformers' wrapper, of data-parallel training and of the authors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.models.tinyvit_config import timm_names
from edgeformer_runtime.errors import InputError

CLASSES = 3


@pytest.fixture(scope="module")
def weights(assets: Path) -> dict[str, Tensor]:
    state = load_file(assets / "golden" / "tiny_vit_5m_224.safetensors")
    return {name: tensor[:CLASSES].contiguous() if ".fc." in name[:8] else tensor for name, tensor in state.items()}


def authors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the authors' tiny_vit.py: a stage's downsampling belongs to the stage before it."""
    named = {}
    for public, tensor in state.items():
        name = re.sub(r"^stages\.(\d+)\.downsample", lambda m: f"layers.{int(m.group(1)) - 1}.downsample", public)
        name = re.sub(r"^stages\.(\d+)\.blocks", r"layers.\1.blocks", name)
        name = re.sub(r"^patch_embed\.conv([12])", lambda m: f"patch_embed.seq.{2 * int(m.group(1)) - 2}", name)
        name = (
            name.replace(".conv.weight", ".c.weight").replace("head.norm.", "norm_head.").replace("head.fc.", "head.")
        )
        named[name] = tensor
    return named


def prefixed(prefix: str) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "rename", [prefixed("module."), prefixed("timm_model."), prefixed("_orig_mod.module.model."), authors]
)
@pytest.mark.parametrize("file", ["model.safetensors", "best.pth.tar", "checkpoint.pth", "checkpoint.pt"])
def test_a_weight_file_alone(
    weights: dict[str, Tensor], tmp_path: Path, rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], file: str
) -> None:
    renamed = rename(weights)
    assert set(renamed) != set(weights)
    if file.endswith("safetensors"):
        save_file(renamed, tmp_path / file)
    else:
        torch.save({"state_dict": renamed, "epoch": 3}, tmp_path / file)
    checkpoint = open_checkpoint(str(tmp_path / file))
    assert (checkpoint.raw["architecture"], len(checkpoint.labels)) == ("tiny_vit_5m_224", CLASSES)
    loaded = checkpoint.family.rename(checkpoint.load_weights())
    assert set(loaded) == set(weights)
    assert all(
        torch.equal(loaded[name], tensor.float()) for name, tensor in weights.items() if tensor.is_floating_point()
    )


@torch.inference_mode()
def test_the_authors_file_computes_what_timm_computes(assets: Path, tmp_path: Path) -> None:
    """As tiny_vit_5m_22k_distill.pth is: the weights under "model", and maybe each attention's table of indices."""
    state = authors(load_file(assets / "golden" / "tiny_vit_5m_224.safetensors"))
    assert {"patch_embed.seq.0.c.weight", "layers.0.downsample.conv1.c.weight", "norm_head.weight", "head.bias"} <= set(
        state
    )
    biases = [name for name in state if name.endswith("attn.attention_biases")]
    tables = {name.replace("_biases", "_bias_idxs"): torch.zeros(49, 49, dtype=torch.int64) for name in biases}
    assert "layers.1.blocks.0.attn.attention_bias_idxs" in tables
    file = tmp_path / "tiny_vit_5m_22k_distill.pth"
    torch.save({"model": {**state, **tables}}, file)
    module, report = load_module(open_checkpoint(str(file)), KERNELS["dense"])
    assert all(name.endswith(("num_batches_tracked", "attention_bias_idxs")) for name in report.unused)
    expected = load_file(assets / "golden" / "tiny_vit_5m_224.io.safetensors")
    (logits,) = module(expected["input"].float())
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-4)


def test_a_folder_of_transformers(weights: dict[str, Tensor], tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "architecture": "tiny_vit_5m_224",
        "architectures": ["TimmWrapperForImageClassification"],
        "model_type": "timm_wrapper",
        "num_classes": CLASSES,
        "label_names": ["cat", "dog", "cow"],
        "problem_type": "multi_label_classification",
        "do_pooling": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(prefixed("timm_model.")(weights), tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(str(tmp_path))
    assert (checkpoint.family.name, checkpoint.labels) == ("tinyvit", ("cat", "dog", "cow"))
    assert (checkpoint.activation, checkpoint.notes) == ("sigmoid", ())
    load_module(checkpoint, KERNELS["fused"])
    pixels = tmp_path / "preprocessor_config.json"
    pixels.write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    with pytest.raises(InputError, match="image_processor_type is 'ViTImageProcessor'"):
        open_checkpoint(str(tmp_path))
    pixels.write_text(json.dumps({"pretrained_cfg": {"crop_pct": 0.5}, "architecture": "tiny_vit_5m_224"}))
    assert open_checkpoint(str(tmp_path)).config.preprocessing.resize_short_side == 448
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_classes": 0, "label_names": None}))
    with pytest.raises(InputError, match="num_classes is 0, so it has no classifier"):
        open_checkpoint(str(tmp_path))


def test_one_name_for_two_tensors_is_refused() -> None:
    with pytest.raises(InputError, match=r"holds head\.fc\.bias twice"):
        timm_names({"head.fc.bias": 1, "module.head.fc.bias": 2})
