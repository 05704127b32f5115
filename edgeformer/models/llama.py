"""Llama (Touvron et al. 2023) and what shares its form: SmolLM2, Mistral, Qwen 2; top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.models import config as fields
from edgeformer.models.cached import (
    GENERATION_TASKS,
    Generator,
    GeneratorLayer,
    check_generation,
    generation_programs,
    no_labels,
    refuse_quantized,
)
from edgeformer.models.family import Family, without_prefix
from edgeformer.models.text import ACTIVATIONS
from edgeformer.models.units import UnitGroup
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

_PREFIX = "model."
_OUTPUT = "lm_head.weight"
_ACTIVATIONS = {"silu": nn.functional.silu, "swish": nn.functional.silu, **ACTIVATIONS}
_ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Rope:
    """How positions become angles (Su et al. 2021, "RoFormer").

    Attributes:
        theta: the base of the frequencies.
        factor: what "linear" divides all frequencies by, and "llama3" the low ones.
        low, high: of "llama3": how often a frequency turns in `original` positions, below which it is low and above
            which it is high; None: the type is another.
        original: positions that the model was trained on first.
    """

    theta: float = 10000.0
    factor: float = 1.0
    low: float | None = None
    high: float = 4.0
    original: int = 8192

    def frequencies(self, head_dim: int) -> Tensor:
        """(D / 2,) float32: radians for each position."""
        plain = 1.0 / (self.theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))
        if self.low is None:
            return plain / self.factor
        turns = self.original * plain / (2 * math.pi)
        smooth = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 - smooth) * plain / self.factor + smooth * plain


@dataclass(frozen=True)
class LlamaConfig:
    """The fields of a public config.json, some under names that programs need.

    `num_heads` are those of queries. `biases` are of queries, keys and values, of the output of attention, and of the
    feed-forward network. `tied`: the output layer is the table of embeddings.
    """

    vocab_size: int = 32000
    hidden_size: int = 4096
    num_layers: int = 32
    num_heads: int = 32
    num_key_value_heads: int = 32
    head_dim: int = 128
    max_positions: int = 2048
    intermediate_size: int = 11008
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    rope: Rope = Rope()
    biases: tuple[bool, bool, bool] = (False, False, False)
    tied: bool = False


_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {},
        "mistral": {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 4096 * 32},
        "qwen2": {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768},
    }
)
"""What a config.json means that leaves a field out, where it is not what Llama's means."""


def parse_config(raw: Mapping[str, Any]) -> LlamaConfig:
    """A public config.json to LlamaConfig; InputError names the field that cannot be honoured.

    >>> parse_config({"hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}).head_dim
    64
    """
    refuse_quantized(raw)
    kind = str(raw.get("model_type", "llama"))
    raw = {**_DEFAULTS.get(kind, {}), **raw}
    default = LlamaConfig()
    # A window that Mistral has by default, and Qwen 2 only where it says so.
    window = raw.get("sliding_window", 4096 if kind == "mistral" else None)
    if window is not None and (kind == "mistral" or raw.get("use_sliding_window")):
        raise InputError(f"config.json: sliding_window must be null, found {shorten(window)}: every token is seen")
    size = fields.read_int(raw, "hidden_size", default.hidden_size)
    heads = fields.read_int(raw, "num_attention_heads", default.num_heads)
    kept = raw.get("num_key_value_heads")
    groups = heads if kept is None else fields.read_int(raw, "num_key_value_heads", heads)
    if heads % groups:
        raise InputError(
            f"config.json: num_attention_heads must be a multiple of num_key_value_heads, found {heads} and {groups}"
        )
    if raw.get("head_dim") is None:
        fields.check_heads(size, heads, "hidden_size")
    head_dim = size // heads if raw.get("head_dim") is None else fields.read_int(raw, "head_dim", default.head_dim)
    if head_dim % 2:
        raise InputError(f"config.json: head_dim must be even, as its halves are rotated, found {head_dim}")
    attention = kind == "qwen2" or fields.read_bool(raw, "attention_bias", False)
    positions = fields.read_int(raw, "max_position_embeddings", default.max_positions)
    return LlamaConfig(
        vocab_size=fields.read_int(raw, "vocab_size", default.vocab_size),
        hidden_size=size,
        num_layers=fields.read_int(raw, "num_hidden_layers", default.num_layers),
        num_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        max_positions=positions,
        intermediate_size=fields.read_int(raw, "intermediate_size", default.intermediate_size),
        hidden_act=fields.read_choice(raw, "hidden_act", default.hidden_act, _ACTIVATIONS),
        rms_norm_eps=fields.read_float(raw, "rms_norm_eps", default.rms_norm_eps),
        rope=_rope(raw),
        biases=(attention, attention and kind != "qwen2", fields.read_bool(raw, "mlp_bias", False)),
        tied=fields.read_bool(raw, "tie_word_embeddings", False),
    )


def _rope(raw: Mapping[str, Any]) -> Rope:
    """transformers 5 has all of it in rope_parameters, older versions rope_theta and rope_scaling."""
    stated = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(stated, Mapping):
        raise InputError(f"config.json: rope_scaling must be an object, found {shorten(stated)}")
    stated = {"rope_theta": raw.get("rope_theta", 10000.0), **stated}
    kind = fields.read_choice(stated, "rope_type", str(stated.get("type", "default")), _ROPE_TYPES)
    theta = fields.read_float(stated, "rope_theta", 10000.0)
    if stated.get("partial_rotary_factor", 1.0) != 1.0:
        raise InputError("config.json: partial_rotary_factor must be 1: whole heads are rotated")
    if kind == "default":
        return Rope(theta)
    factor = fields.read_float(stated, "factor", 1.0)
    if kind == "linear":
        return Rope(theta, factor)
    return Rope(
        theta,
        factor,
        fields.read_float(stated, "low_freq_factor", 1.0),
        fields.read_float(stated, "high_freq_factor", 4.0),
        fields.read_int(stated, "original_max_position_embeddings", 8192),
    )


class RMSNorm(nn.Module):
    """Root mean square layer normalisation (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + self.eps) * self.weight


class _Attention(nn.Module):
    """The projections of a layer's attention."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, width = config.hidden_size, config.num_heads * config.head_dim
        kept = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(size, width, bias=config.biases[0])
        self.k_proj = nn.Linear(size, kept, bias=config.biases[0])
        self.v_proj = nn.Linear(size, kept, bias=config.biases[0])
        self.o_proj = nn.Linear(width, size, bias=config.biases[1])


class _FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, "GLU Variants Improve Transformer")."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size, middle, bias = config.hidden_size, config.intermediate_size, config.biases[2]
        self.gate_proj = nn.Linear(size, middle, bias=bias)
        self.up_proj = nn.Linear(size, middle, bias=bias)
        self.down_proj = nn.Linear(middle, size, bias=bias)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        out: Tensor = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return out


class LlamaLayer(GeneratorLayer):
    """A block, normalised before each half."""

    def __init__(self, config: LlamaConfig, kernel: AttentionKernel) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = _FeedForward(config)
        self.heads = config.num_heads
        self.head_dim = config.head_dim
        self.attention = kernel
        self.scale = config.head_dim**-0.5

    @property
    def num_heads(self) -> int:
        """Heads of queries in its self-attention."""
        return self.heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:  # noqa: ARG002
        """Nothing: neurons have gates, which pruning does not know, and the caches have one shape for all layers."""
        yield from ()

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """See `GeneratorLayer.project`."""
        assert rotation is not None
        hidden, attention = self.input_layernorm(x), self.self_attn
        queries, keys = (self._rotated(part(hidden), rotation) for part in (attention.q_proj, attention.k_proj))
        return queries, keys, attention.v_proj(hidden)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """See `GeneratorLayer.finish`."""
        x = x + self.self_attn.o_proj(attended)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out

    def _rotated(self, x: Tensor, rotation: Tensor) -> Tensor:
        """x (..., N, heads*D), each head rotated by cosines and sines (N, 2 D): half of it with the other half."""
        heads = x.reshape(*x.shape[:-1], -1, self.head_dim)  # (..., N, heads, D)
        first, second = heads.chunk(2, dim=-1)
        cos, sin = rotation.reshape(rotation.shape[0], 1, 2 * self.head_dim).chunk(2, dim=-1)  # (N, 1, D)
        turned = heads * cos + torch.cat((-second, first), dim=-1) * sin
        return turned.reshape(x.shape)


class Llama(Generator):
    """The model, under the names of public checkpoints without their prefix."""

    frequencies: Tensor

    def __init__(self, config: LlamaConfig, kernel: AttentionKernel) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LlamaLayer(config, kernel) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        frequencies = config.rope.frequencies(config.head_dim)
        self.register_buffer("frequencies", torch.cat((frequencies, frequencies)), persistent=False)  # (D,)

    @property
    def blocks(self) -> Sequence[LlamaLayer]:
        """The layers."""
        return list(self.layers)  # type: ignore[arg-type]

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG002
        """See `Generator.embed`; positions rotate instead."""
        out: Tensor = self.embed_tokens(tokens)
        return out

    def rotation(self, positions: Tensor) -> Tensor:
        """Cosines and sines (N, 2 D) float32 of the angles at positions (N,) int32."""
        angles = positions.to(torch.float32).reshape(-1, 1) * self.frequencies
        return torch.cat((angles.cos(), angles.sin()), dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """See `Generator.logits`."""
        weight = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return nn.functional.linear(self.norm(x), weight)


def build(config: LlamaConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:  # noqa: ARG001
    """A Llama in eval mode with untrained weights; it has no labels."""
    check_generation(task)
    return Llama(config, attention).eval()


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public names to ours.

    Raises:
        InputError: two public names mean the same.
    """
    return without_prefix(state, _PREFIX)


def publish(state: Mapping[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:  # noqa: ARG001
    """The way back."""
    return {name if name == _OUTPUT else _PREFIX + name: tensor for name, tensor in state.items()}


def _with_layers(
    raw: Mapping[str, Any], config: LlamaConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], LlamaConfig]:
    count = len(left["layers"])
    return {**raw, "num_hidden_layers": count}, replace(config, num_layers=count)


_SIZES = (
    ("vocab_size", "hidden_size"),
    ("num_hidden_layers", "hidden_size", "hidden_size"),
    ("num_hidden_layers", "hidden_size", "intermediate_size"),
)

FAMILY = Family(
    name="llama",
    tasks=GENERATION_TASKS,
    parse_config=parse_config,
    build=build,
    rename=rename,
    publish=publish,
    # What old checkpoints stored of their angles, and an output layer that is tied to the embeddings, written out.
    unused=("layers.*.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq", _OUTPUT),
    programs=generation_programs,
    parse_labels=no_labels,
    blocks=("model.layers.*",),
    with_layers=_with_layers,
    sizes=MappingProxyType(dict.fromkeys(("llama", "mistral", "qwen2"), _SIZES)),
    classes=("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"),
)
