"""TinyViT (Wu et al. 2022, "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV).

Module and parameter names are those of timm's checkpoints. Key: B batch, H height, W width, C channels, M windows,
N tokens of one window, D head dim. Stages take and give (B, C, H, W); attention blocks work on (B, H, W, C).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import AttentionKernel
from edgeformer.models.config import LayerWidths
from edgeformer.models.family import Family, Program, ProgramOptions
from edgeformer.models.text import attention_heads, merge_heads
from edgeformer.models.tinyvit_config import TinyViTConfig, describe, parse_config, parse_labels, timm_names
from edgeformer.models.units import AttentionModule, Slice, StackedLayer, UnitGroup, head_group, neuron_group
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.errors import InputError

IMAGE_TASKS = ("image-classification",)


class BatchNorm(nn.Module):
    """Batch normalisation over (B, C, H, W) without the count of batches, which takes no part in the result."""

    running_mean: Tensor
    running_var: Tensor
    eps = 1e-5
    momentum = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )


class ConvNorm(nn.Module):
    """A convolution without bias, padded to keep the size at stride 1, and a batch norm."""

    def __init__(self, size_in: int, size_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size_in, size_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = BatchNorm(size_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size_in, H, W) to (B, size_out, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.bn(self.conv(x))
        return out


class PatchEmbed(nn.Module):
    """Two convolutions of stride 2 (section 3.2)."""

    def __init__(self, size_out: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, size_out // 2, kernel=3, stride=2)
        self.conv2 = ConvNorm(size_out // 2, size_out, kernel=3, stride=2)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H/4, W/4)."""
        out: Tensor = self.conv2(F.gelu(self.conv1(pixels)))
        return out


class MBConv(nn.Module):
    """An inverted bottleneck whose last activation comes after the residual."""

    def __init__(self, size: int, expand_ratio: float) -> None:
        super().__init__()
        middle = int(size * expand_ratio)
        self.conv1 = ConvNorm(size, middle)
        self.conv2 = ConvNorm(middle, middle, kernel=3, groups=middle)
        self.conv3 = ConvNorm(middle, size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class ConvStage(nn.Module):
    """The first stage: convolutions only."""

    def __init__(self, config: TinyViTConfig) -> None:
        super().__init__()
        size = config.embed_dims[0]
        self.blocks = nn.Sequential(*(MBConv(size, config.mbconv_expand_ratio) for _ in range(config.depths[0])))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        out: Tensor = self.blocks(x)
        return out


class PatchMerging(nn.Module):
    """Half the resolution, other channels."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(size_in, size_out)
        self.conv2 = ConvNorm(size_out, size_out, kernel=3, stride=2, groups=size_out)
        self.conv3 = ConvNorm(size_out, size_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size_in, H, W) to (B, size_out, H/2, W/2)."""
        out: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class SeparateProjections(nn.Module):
    """The projections of queries, keys and values as three layers, for export."""

    def __init__(self, qkv: nn.Linear, num_heads: int) -> None:
        super().__init__()
        size, width = qkv.in_features, qkv.out_features // 3
        # Checkpoints keep the rows of one head together: (heads, 3, D, C).
        weights = qkv.weight.detach().reshape(num_heads, 3, -1, size).unbind(1)
        biases = qkv.bias.detach().reshape(num_heads, 3, -1).unbind(1)
        self.layers = nn.ModuleList(nn.Linear(size, width) for _ in range(3))
        for layer, weight, bias in zip(self.layers, weights, biases, strict=True):
            layer.weight = nn.Parameter(weight.reshape(width, size).contiguous())
            layer.bias = nn.Parameter(bias.reshape(width).contiguous())


class WindowAttention(AttentionModule):
    """Attention among the tokens of one window, with a bias per head and distance."""

    attention_bias_idxs: Tensor
    constant_bias: Tensor | None

    def __init__(self, size: int, num_heads: int, head_dim: int, window: int, attention: AttentionKernel) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.norm = nn.LayerNorm(size)
        self.qkv: nn.Linear | SeparateProjections = nn.Linear(size, 3 * width)
        self.proj = nn.Linear(width, size)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.register_buffer("attention_bias_idxs", _distance_index(window), persistent=False)
        self.register_buffer("constant_bias", None, persistent=False)
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.attention = attention

    def position_bias(self) -> Tensor:
        """(1, heads, N, N): what the distance between two tokens adds to their score."""
        if self.constant_bias is not None:
            return self.constant_bias
        return self.attention_biases[:, self.attention_bias_idxs][None]

    def forward(self, x: Tensor) -> Tensor:
        """(M, N, C) to the same."""
        q, k, v = self._project(self.norm(x))
        out: Tensor = self.proj(merge_heads(self.attention(q, k, v, self.position_bias(), self.scale)))
        return out

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(M, N, C) to q, k and v, each (M, heads, N, D)."""
        if isinstance(self.qkv, SeparateProjections):
            return tuple(attention_heads(layer(x), self.num_heads) for layer in self.qkv.layers)
        return attention_heads(self.qkv(x), self.num_heads).chunk(3, dim=3)


def _distance_index(window: int) -> Tensor:
    """(N, N) int64: row of the bias table for each pair of tokens, |dy| * window + |dx|."""
    axis = torch.arange(window)
    distance = (axis[:, None] - axis[None]).abs()  # (window, window)
    pairs = distance[:, None, :, None] * window + distance[None, :, None, :]  # (y1, x1, y2, x2)
    return pairs.reshape(window * window, window * window)


class Mlp(nn.Module):
    """Norm, widen, narrow."""

    def __init__(self, size: int, neurons: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.fc1 = nn.Linear(size, neurons)
        self.fc2 = nn.Linear(neurons, size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C), H and W multiples of the window, to (M, N, C). No tensor on the way has more than four axes."""
    batch, height, width, channels = x.shape
    rows = x.reshape(batch * height // window, window, width // window, window * channels)
    return rows.transpose(1, 2).reshape(-1, window * window, channels)


def from_windows(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`: (M, N, C) to (B, H, W, C)."""
    channels = x.shape[2]
    rows = x.reshape(-1, width // window, window, window * channels)  # (B * H / window, W / window, ...)
    return rows.transpose(1, 2).reshape(-1, height, width, channels)


class Block(StackedLayer):
    """Window attention, a depthwise convolution that lets windows meet, and an MLP (section 3.2)."""

    def __init__(self, config: TinyViTConfig, stage: int, widths: LayerWidths, attention: AttentionKernel) -> None:
        super().__init__()
        size = config.embed_dims[stage]
        self.window = config.window_sizes[stage]
        self.attn = WindowAttention(size, widths.heads, size // config.num_heads[stage], self.window, attention)
        self.local_conv = ConvNorm(size, size, kernel=config.local_conv_size, groups=size)
        self.mlp = Mlp(size, *widths.neurons)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to the same."""
        x = x + self._attend(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = x + self.mlp(x)
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        window = self.window
        if height == width == window:
            return self.attn(x.reshape(batch, height * width, channels)).reshape(x.shape)  # type: ignore[no-any-return]
        bottom, right = -height % window, -width % window
        if bottom or right:
            # Zeros take part in attention as keys, as they did in training: there is no mask.
            x = F.pad(x, (0, 0, 0, right, 0, bottom))
        x = from_windows(self.attn(to_windows(x, window)), window, height + bottom, width + right)
        return x[:, :height, :width] if bottom or right else x

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        return self.attn.num_heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its heads with their position biases, and its neurons."""
        size = self.attn.proj.in_features // self.num_heads
        biases = Slice("attn.attention_biases", 0, 1)
        yield head_group(name, self.num_heads, ["attn.qkv"], size, "attn.proj", writer_size=3 * size, more=(biases,))
        yield neuron_group(self, name, 0, "mlp.fc1", "mlp.fc2")


class AttentionStage(nn.Module):
    """A stage from the second on: half the resolution, then attention blocks."""

    def __init__(self, config: TinyViTConfig, stage: int, attention: AttentionKernel) -> None:
        super().__init__()
        self.downsample = PatchMerging(config.embed_dims[stage - 1], config.embed_dims[stage])
        self.blocks = nn.Sequential(*(Block(config, stage, widths, attention) for widths in config.stage_widths(stage)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of the stage before to (B, C, H/2, W/2)."""
        x = self.downsample(x).permute(0, 2, 3, 1)
        out: Tensor = self.blocks(x).permute(0, 3, 1, 2)
        return out


class Head(nn.Module):
    """Mean over the positions, norm, logits."""

    def __init__(self, size: int, num_labels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.fc = nn.Linear(size, num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, labels)."""
        out: Tensor = self.fc(self.norm(x.mean(dim=(2, 3))))
        return out


class TinyViT(nn.Module):
    """Normalised pixels to logits."""

    def __init__(self, config: TinyViTConfig, num_labels: int, attention: AttentionKernel) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.patch_embed = PatchEmbed(config.embed_dims[0])
        later = (AttentionStage(config, stage, attention) for stage in range(1, len(config.depths)))
        self.stages = nn.Sequential(ConvStage(config), *later)
        self.head = Head(config.embed_dims[-1], num_labels)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """pixels (B, 3, H, W) float32, normalised, to (logits (B, L) float32,)."""
        return (self.head(self.stages(self.patch_embed(pixels))),)


@torch.no_grad()
def prepare_for_export(module: TinyViT) -> TinyViT:
    """A copy that computes exactly the same with less to lower; the module itself stays as it is.

    5M at 224 pixels, one thread, medians with a noise of 1 ms. LiteRT: 600 nodes and 32.8 ms before, 598 and 32.0
    after, one partition both times: its converter folds batch norms and constant gathers itself, and 84 GFLOP/s is what
    the core can do. ExecuTorch: separate projections and a constant bias with all its axes take it from 32 partitions
    and 42.5 ms to 22 and 40.8, the layer norms being what is left. ONNX Runtime: 39.3 and 39.2 ms.

    Not done, because measured without gain: four-dimensional products (8 nodes more), channels-last input (a transpose
    less). The factor of q·k stays out of the weights, because Core ML keeps attention whole only with its default
    factor. No convolution needs a transpose in LiteRT: its converter lays the data out as (B, H, W, C) throughout.
    """
    prepared = copy.deepcopy(module).eval()
    fold_batch_norms(prepared)
    fold_norm_weights(prepared)
    separate_projections(prepared)
    fix_position_biases(prepared)
    return prepared


@torch.no_grad()
def fold_batch_norms(module: nn.Module) -> None:
    """Make each batch norm part of the convolution before it."""
    for part in list(module.modules()):
        if isinstance(part, ConvNorm) and isinstance(part.bn, BatchNorm):
            norm = part.bn
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            part.conv.weight.mul_(scale[:, None, None, None])
            part.conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
            part.bn = nn.Identity()


@torch.no_grad()
def fold_norm_weights(module: nn.Module) -> None:
    """Make the factors and offsets of each layer norm part of the linear layer behind it."""
    for part in list(module.modules()):
        if isinstance(part, WindowAttention) and isinstance(part.qkv, nn.Linear):
            part.norm = _folded(part.norm, part.qkv)
        elif isinstance(part, Mlp):
            part.norm = _folded(part.norm, part.fc1)
        elif isinstance(part, Head):
            part.norm = _folded(part.norm, part.fc)


def _folded(norm: nn.LayerNorm, linear: nn.Linear) -> nn.LayerNorm:
    """The norm without weights; the linear layer takes them over."""
    if norm.elementwise_affine:
        linear.bias.add_(linear.weight @ norm.bias)
        linear.weight.mul_(norm.weight)
    return nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)


def separate_projections(module: nn.Module) -> None:
    """Let queries, keys and values come from layers of their own, so that nothing has to be cut apart."""
    for part in list(module.modules()):
        if isinstance(part, WindowAttention) and isinstance(part.qkv, nn.Linear):
            part.qkv = SeparateProjections(part.qkv, part.num_heads)


@torch.no_grad()
def fix_position_biases(module: nn.Module) -> None:
    """Look the position biases up once: (1, heads, N, N) constants."""
    for part in list(module.modules()):
        if isinstance(part, WindowAttention):
            part.constant_bias = part.position_bias().contiguous()


def build(config: TinyViTConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:
    """A TinyViT in eval mode with untrained weights."""
    if task not in IMAGE_TASKS:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(IMAGE_TASKS)}")
    if num_labels < 2:
        raise InputError(f"image-classification needs at least 2 labels, found {num_labels}")
    return TinyViT(config, num_labels, attention).eval()


def programs(module: nn.Module, config: TinyViTConfig, options: ProgramOptions) -> tuple[Program, ...]:  # noqa: ARG001
    """The one program "image" of a TinyViT; images have one size, so no option says anything."""
    if not isinstance(module, TinyViT):
        raise TypeError(f"expected a TinyViT, found {type(module).__name__}")
    pixels = TensorSpec("pixels", "float32", (1, 3, *config.image_size))
    return (
        Program(
            "image", prepare_for_export(module), (pixels,), (TensorSpec("logits", "float32", (1, module.num_labels)),)
        ),
    )


def publish(state: Mapping[str, Tensor], config: TinyViTConfig) -> dict[str, Tensor]:  # noqa: ARG001
    """Our names are the public ones."""
    return dict(state)


def _with_layers(
    raw: Mapping[str, Any], config: TinyViTConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], TinyViTConfig]:
    depths = list(config.depths)
    for stack, numbers in left.items():
        depths[int(stack.split(".")[1])] = len(numbers)  # "stages.1.blocks"
    arguments = {**raw.get("model_args", {}), "depths": depths}
    return {**raw, "model_args": arguments}, replace(config, depths=tuple(depths), layer_widths=())


FAMILY = Family(
    name="tinyvit",
    tasks=IMAGE_TASKS,
    parse_config=parse_config,
    build=build,
    rename=timm_names,
    publish=publish,
    unused=("*.num_batches_tracked", "*.attention_bias_idxs"),
    programs=programs,
    parse_labels=parse_labels,
    blocks=("patch_embed", "stages.*.downsample", "stages.*.blocks.*"),
    with_layers=_with_layers,
    describe_weights=describe,
)
