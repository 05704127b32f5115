"""Our TinyViT against timm's stored reference tensors and key lists, and its export form against itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import KERNELS
from edgeformer.models import tinyvit
from edgeformer.models.family import ProgramOptions
from edgeformer.models.tinyvit import FAMILY, TinyViT
from edgeformer_runtime.errors import InputError

TASK = "image-classification"
COUNTERS = ".num_batches_tracked"
SMALL: dict[str, Any] = {
    "architecture": "tiny_vit_5m_224",
    "model_args": {
        "embed_dims": [8, 12, 16],
        "depths": [1, 2, 1],
        "num_heads": [1, 2, 4],
        "window_sizes": [1, 3, 2],
        "mlp_ratio": 2.0,
        "mbconv_expand_ratio": 3.0,
    },
    "pretrained_cfg": {"input_size": [3, 48, 48], "crop_pct": 0.9},
}


def build(raw: dict[str, Any], num_labels: int = 5, kernel: str = "dense") -> TinyViT:
    """A model whose every tensor is random, so that none can be forgotten."""
    torch.manual_seed(0)
    module = FAMILY.build(FAMILY.parse_config(raw), TASK, num_labels, KERNELS[kernel])
    assert isinstance(module, TinyViT)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=generator).abs() * 0.2)
    return module


def pixels(size: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def golden(assets: Path) -> tuple[TinyViT, dict[str, Tensor]]:
    """timm's tiny_vit_5m_224 with stored weights, and what timm computes with them."""
    state = FAMILY.rename(load_file(assets / "golden/tiny_vit_5m_224.safetensors"))
    module = FAMILY.build(FAMILY.parse_config({"architecture": "tiny_vit_5m_224"}), TASK, 1000, KERNELS["dense"])
    assert isinstance(module, TinyViT)
    module.load_state_dict({name: value.float() for name, value in state.items() if not name.endswith(COUNTERS)})
    return module, load_file(assets / "golden/tiny_vit_5m_224.io.safetensors")


@torch.inference_mode()
def test_equals_timm_at_every_stage(golden: tuple[TinyViT, dict[str, Tensor]]) -> None:
    module, expected = golden
    images = expected["input"].float()
    (logits,) = module(images)
    # float32 sums in another order; timm's own float32 is as far from its float64.
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits.double(), expected["logits_fp64"], rtol=0, atol=1e-4)
    x = module.patch_embed(images[:1])
    torch.testing.assert_close(x, expected["tap.patch_embed"], rtol=0, atol=1e-4)
    for number, stage in enumerate(module.stages):
        x = stage(x)
        torch.testing.assert_close(x, expected[f"tap.stage{number}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", ["5m", "11m", "21m"])
def test_names_and_shapes_are_timms(assets: Path, size: str) -> None:
    listed = json.loads((assets / f"golden/tiny_vit_{size}_224.keys.json").read_text())
    expected = {name: tuple(shape) for name, shape in listed["keys"] if not name.endswith(COUNTERS)}
    with torch.device("meta"):
        config = FAMILY.parse_config({"architecture": f"tiny_vit_{size}_224"})
        module = FAMILY.build(config, TASK, listed["num_classes"], KERNELS["dense"])
    assert {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()} == expected
    assert sum(p.numel() for p in module.parameters()) == listed["num_parameters"]


def naive_block(block: tinyvit.Block, x: Tensor) -> Tensor:
    """A block of one image (1, H, W, C), window by window, with padding that takes part as keys."""
    _, height, width, channels = x.shape
    window = block.window
    padded = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    attended = torch.zeros_like(padded)
    for top in range(0, padded.shape[1], window):
        for left in range(0, padded.shape[2], window):
            tile = padded[0, top : top + window, left : left + window].reshape(-1, channels)
            attended[0, top : top + window, left : left + window] = naive_attention(block.attn, tile, window).reshape(
                window, window, channels
            )
    x = x + attended[:, :height, :width]
    x = block.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return x + block.mlp(x)


def naive_attention(attn: tinyvit.WindowAttention, tokens: Tensor, window: int) -> Tensor:
    """Head by head over (N, C), the bias looked up by distance."""
    projected = attn.qkv(attn.norm(tokens)).reshape(len(tokens), attn.num_heads, -1)
    heads = []
    for head in range(attn.num_heads):
        q, k, v = projected[:, head].chunk(3, dim=1)
        scores = q @ k.T / q.shape[1] ** 0.5
        for i in range(len(tokens)):
            for j in range(len(tokens)):
                dy, dx = abs(i // window - j // window), abs(i % window - j % window)
                scores[i, j] += attn.attention_biases[head, dy * window + dx]
        heads.append(scores.softmax(dim=1) @ v)
    return attn.proj(torch.cat(heads, dim=1))


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(3, 3), (6, 6), (4, 5), (2, 7)])
def test_windows_with_and_without_padding(height: int, width: int) -> None:
    block = build(SMALL).stages[1].blocks[0]
    x = torch.randn(1, height, width, 12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(block(x), naive_block(block, x), rtol=1e-5, atol=1e-5)


def test_windows_there_and_back() -> None:
    x = torch.arange(2 * 6 * 4 * 3.0).reshape(2, 6, 4, 3)
    windows = tinyvit.to_windows(x, 2)
    assert windows.shape == (12, 4, 3)
    assert torch.equal(windows[1], x[0, :2, 2:4].reshape(4, 3))
    assert torch.equal(tinyvit.from_windows(windows, 2, 6, 4), x)


@torch.inference_mode()
@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("size", [48, 40])
def test_kernels_agree(kernel: str, size: int) -> None:
    images = pixels(size)
    expected = build(SMALL)(images)[0]
    torch.testing.assert_close(build(SMALL, kernel=kernel)(images)[0], expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(
    "step",
    [
        tinyvit.fold_batch_norms,
        tinyvit.fold_norm_weights,
        tinyvit.separate_projections,
        tinyvit.fix_position_biases,
        None,
    ],
)
@pytest.mark.parametrize("size", [48, 40])
def test_preparing_changes_nothing(step: Any, size: int) -> None:
    module, images = build(SMALL), pixels(size)
    expected = module(images)[0]
    if step is None:
        prepared = tinyvit.prepare_for_export(module)
        assert torch.equal(module(images)[0], expected)
        assert not any(isinstance(part, tinyvit.BatchNorm) for part in prepared.modules())
    else:
        prepared = module
        step(prepared)
        step(prepared)  # a second time finds nothing to do
    torch.testing.assert_close(prepared(images)[0], expected, rtol=1e-4, atol=1e-4)
    assert all(tensor.is_contiguous() for tensor in [*prepared.parameters(), *prepared.buffers()])


@torch.inference_mode()
def test_the_program_equals_timm(golden: tuple[TinyViT, dict[str, Tensor]]) -> None:
    module, expected = golden
    (program,) = FAMILY.programs(module, FAMILY.parse_config({"architecture": "tiny_vit_5m_224"}), ProgramOptions())
    assert program.name == "image"
    assert [(spec.name, spec.dtype, spec.shape) for spec in program.inputs] == [("pixels", "float32", (1, 3, 224, 224))]
    assert [(spec.name, spec.dtype, spec.shape) for spec in program.outputs] == [("logits", "float32", (1, 1000))]
    torch.testing.assert_close(program.module(expected["input"].float())[0], expected["logits"], rtol=0, atol=1e-4)


def test_training_and_gradients() -> None:
    module = build(SMALL).train()
    before = module.patch_embed.conv1.bn.running_mean.clone()
    module(pixels(48))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert not torch.equal(module.patch_embed.conv1.bn.running_mean, before)


@torch.inference_mode()
def test_batch_norm_equals_torchs() -> None:
    ours, theirs = tinyvit.BatchNorm(4), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_refuses_tasks_and_heads() -> None:
    config = FAMILY.parse_config(SMALL)
    with pytest.raises(InputError, match="unknown task 'text-embedding': expected one of image-classification"):
        FAMILY.build(config, "text-embedding", 3, KERNELS["dense"])
    with pytest.raises(InputError, match="at least 2 labels, found 1"):
        FAMILY.build(config, TASK, 1, KERNELS["dense"])


@pytest.mark.slow
@pytest.mark.litert
def test_litert_equals_timm(golden: tuple[TinyViT, dict[str, Tensor]], tmp_path: Path) -> None:
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    from edgeformer_converters.litert.converter import LiteRTConverter

    module, expected = golden
    programs = FAMILY.programs(module, FAMILY.parse_config({"architecture": "tiny_vit_5m_224"}), ProgramOptions())
    lowered = LiteRTConverter().lower_fp32(programs, tmp_path)
    assert lowered.partitions == 1
    # The input, four per block (q, k, v, out), and windows there and back in the blocks that have several: none else.
    assert lowered.operators["TRANSPOSE"] <= 46
    interpreter = interpreter_module.Interpreter(str(tmp_path / lowered.files[0]), num_threads=1)
    run = interpreter.get_signature_runner("image")
    for row in range(2):
        found = run(pixels=expected["input"][row : row + 1].float().numpy())["logits"]
        torch.testing.assert_close(torch.from_numpy(found), expected["logits"][row : row + 1], rtol=0, atol=1e-4)
