"""Models that are none of ours, as people convert them to Core ML: small, with seeded weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = (1, 4, 12, 12)
SEQUENCE = (2, 6, 8)


# What coremltools' frontend for torch.export lacks or gets wrong (a GELU's approximation), or its one for traces lacks.
TRACED_ONLY = frozenset({"gelu_tanh", "grid_sample", "gru", "lstm", "lstm_states", "norms", "pool_1d", "rnn"})
EXPORTED_ONLY = frozenset({"encoder_layer"})


@dataclass(frozen=True)
class Foreign:
    """A module with an example of its inputs, and the ways to Core ML that coremltools has for it."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    ways: tuple[str, ...]


class Call(nn.Module):
    """A function with the modules that it uses."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(modules)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, **self.parts)


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze and excite, hard swish, project."""

    def __init__(self, channels: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.Hardswish(),
            nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(hidden, hidden, 1), nn.Hardsigmoid())
        self.project = nn.Sequential(nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.body(x)
        return x + self.project(inner * self.gate(inner))


def _convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        InvertedResidual(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 12, 1),
        nn.PReLU(12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


def _unet() -> nn.Module:
    down = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.GroupNorm(4, 8), nn.SiLU())
    up = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1)
    return Call(lambda x, down, up: torch.sigmoid(torch.cat([x, up(down(x))], 1)), down=down, up=up)


def _functions() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """Functions of tensors alone, by name."""
    image, x = torch.randn(IMAGE), torch.randn(SEQUENCE)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]], dtype=torch.int32)
    places = torch.tensor([[0, 2, 1, 1, 0, 3]], dtype=torch.int32)
    return {
        "elementwise": (
            lambda x: torch.tanh(x) + torch.sin(x) * torch.cos(x) - torch.exp(-x.abs()) + (x * x + 1).sqrt().log(),
            (x,),
        ),
        "activations": (
            lambda x: F.elu(x) + F.leaky_relu(x, 0.2) + F.softplus(x) + F.mish(x) + F.hardtanh(x) + F.gelu(x),
            (x,),
        ),
        "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh") + F.silu(x), (x,)),
        "division": (lambda x: torch.div(x, 0.3, rounding_mode="floor") + torch.remainder(x, 0.7) + x.sign(), (x,)),
        "comparisons": (
            lambda x: torch.where(torch.logical_or(torch.logical_and(x > 0, x < 1), x == 0), x, x.clamp(-0.5, 0.5)),
            (x,),
        ),
        "reductions": (
            lambda x: x.sum(-1) + x.mean(-1) + x.amax(-1) + x.std(-1) + x.norm(dim=-1) + torch.logsumexp(x, -1),
            (x,),
        ),
        "argmax": (lambda x: (x.argmax(-1), x.argmin(1), x.max(-1)[1]), (x,)),
        "topk": (lambda x: torch.topk(x, 3, -1), (x,)),
        "sort": (lambda x: (torch.sort(x, -1)[0], torch.argsort(x, -1, descending=True)), (x,)),
        "cumsum": (lambda x: torch.cumsum(x, 1), (x,)),
        "arange": (lambda x: x + torch.arange(x.shape[-1]).float() * torch.ones_like(x), (x,)),
        "triangle": (lambda x: x @ torch.triu(x.transpose(1, 2) @ x) @ torch.tril(x.transpose(1, 2) @ x, -1), (x,)),
        "embedding": (lambda ids: F.one_hot(ids.long(), 10).float() * 0.5, (ids,)),
        "gather": (lambda x, places: torch.gather(x[:1, :, 0], 1, places.long()), (x, places)),
        "index_select": (lambda x, places: x.index_select(1, places[0].long()), (x, places)),
        "scatter": (
            lambda x, places: torch.zeros(1, 8).scatter_add(1, places.long(), x[:1, :, 0]),
            (x, places),
        ),
        "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x) + torch.einsum("bij,bkj->bki", x, x), (x,)),
        "attention": (lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]), (x,)),
        "slices": (
            lambda x: torch.cat([x[:, ::2], x[:, 1:4], x.flip(1)], 1).roll(1, 1).narrow(2, 1, 3).repeat(1, 2, 1),
            (x,),
        ),
        "chunks": (
            lambda x: torch.stack(x.chunk(2, -1), 1).squeeze().transpose(0, 1).contiguous() * 2,
            (x,),
        ),
        "average_pool": (
            lambda x: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            (image,),
        ),
        "pool_ceil": (
            lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True) + F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)[..., :6, :6],
            (image,),
        ),
        "pool_1d": (lambda x: F.max_pool1d(x, 2) + F.avg_pool1d(x, 2), (x,)),
        "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=2), (image,)),
        "upsample_bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (image,)),
        "upsample_corners": (
            lambda x: F.interpolate(x, (20, 17), mode="bilinear", align_corners=True),
            (image,),
        ),
        "upsample_to": (lambda x: F.interpolate(x, (24, 36), mode="bilinear") + F.interpolate(x, (24, 36)), (image,)),
        "grid_sample": (
            lambda x: F.grid_sample(
                x, F.affine_grid(torch.tensor([[[0.8, 0.2, 0.1], [-0.3, 1.1, 0]]]), [1, 4, 9, 7], align_corners=True),
                align_corners=True,
            ),
            (image,),
        ),
        "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (image,)),
        "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (image,)),
        "padding": (lambda x: F.pad(F.pad(x, (1, 2, 3, 0), mode="reflect"), (1, 1, 1, 1), mode="replicate"), (image,)),
        "normalize": (lambda x: F.normalize(x, dim=1) + F.instance_norm(x) + F.local_response_norm(x, 3), (image,)),
        "softmaxes": (lambda x: F.softmax(x, 1) + F.log_softmax(x, -1), (x,)),
        "variance": (lambda x: x.var(1) + (x.pow(2) + 1).rsqrt().sum(1) + x.abs().sum(1), (x,)),
        "floor": (lambda x: x.floor() + x.ceil() + x.round() + torch.atan(x) + torch.erf(x), (x,)),
        "logic": (lambda x: torch.logical_xor(x > 0, x < 0.5).float() + (~(x > 1)).float() + (x != 0).float(), (x,)),
        "nonzero": (lambda x: torch.nonzero(x[0] > 0), (x,)),
        "masked": (lambda x: x.masked_fill(x > 0, -3.0) + torch.maximum(x, x * 2) + torch.minimum(x, -x), (x,)),
        "products": (
            lambda x: torch.bmm(x, x.transpose(1, 2)) + torch.addmm(x[0, 0], x[0], x[1].reshape(8, 6) @ x[0])[:, :6],
            (x,),
        ),
        "cast": (lambda ids: ids.float() / 3 + (ids % 4).float() + (ids // 2).float(), (ids,)),
        "hyperbolic": (lambda x: torch.sinh(x) + torch.cosh(x) + torch.atanh(x.tanh() * 0.9) + torch.exp2(x), (x,)),
    }  # fmt: skip


def _modules() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """Modules with weights, by name."""
    image, x = torch.randn(IMAGE), torch.randn(SEQUENCE)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9]], dtype=torch.int32)
    lstm = nn.LSTM(8, 5, num_layers=2, bidirectional=True, batch_first=True)
    return {
        "convnet": (_convnet(), (image,)),
        "unet": (_unet(), (image,)),
        "conv1d": (nn.Sequential(nn.Conv1d(6, 8, 3, padding=2, dilation=2), nn.BatchNorm1d(8), nn.Mish()), (x,)),
        "conv3d": (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.MaxPool3d(2)), (image.unsqueeze(1),)),
        "transposed": (nn.ConvTranspose1d(6, 4, 3, stride=2, padding=1, output_padding=1), (x,)),
        "grouped": (nn.ConvTranspose2d(4, 4, 3, stride=2, groups=2, dilation=2), (image,)),
        "lstm": (Call(lambda x, lstm: lstm(x)[0], lstm=lstm), (x,)),
        "lstm_states": (Call(lambda x, lstm: lstm(x)[1], lstm=nn.LSTM(8, 5, batch_first=True)), (x,)),
        "gru": (Call(lambda x, gru: gru(x)[0], gru=nn.GRU(8, 5, batch_first=True)), (x,)),
        "rnn": (Call(lambda x, rnn: rnn(x)[0], rnn=nn.RNN(8, 5, nonlinearity="relu")), (x,)),
        "encoder_layer": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), (x,)),
        "bag": (Call(lambda ids, table: table(ids).mean(1), table=nn.Embedding(10, 4)), (ids,)),
        "norms": (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.RMSNorm(8), nn.Softsign()), (x,)),
    }


def _public_architectures() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """transformers' modules at tiny sizes, by name."""
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    shared: dict[str, Any] = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
        "return_dict": False,
    }  # fmt: skip
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]], dtype=torch.int32)
    bert = BertModel(BertConfig(vocab_size=40, max_position_embeddings=16, **shared))
    vit = ViTModel(ViTConfig(image_size=16, patch_size=8, **shared))
    hidden = torch.zeros(1, 1, 8, 8)
    hidden[..., 6:] = -100.0
    places = torch.arange(8, dtype=torch.int32)[None]
    return {"bert": (bert, (ids, hidden, torch.zeros_like(ids), places)), "vit": (vit, (torch.randn(1, 3, 16, 16),))}


def foreign_models() -> dict[str, Foreign]:
    """All of them, in evaluation mode."""
    torch.manual_seed(0)
    functions = {name: (Call(function), inputs) for name, (function, inputs) in _functions().items()}
    return {
        name: Foreign(
            module.eval().requires_grad_(False),
            inputs,
            ("trace",) if name in TRACED_ONLY else ("export",) if name in EXPORTED_ONLY else ("export", "trace"),
        )
        for name, (module, inputs) in (functions | _modules() | _public_architectures()).items()
    }
