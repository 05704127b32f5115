"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

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
from edgeformer.models.units import UnitGroup, neuron_group
from edgeformer_runtime.errors import InputError

_PREFIX = "transformer."
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
"""Stored as (in, out) in public checkpoints, whose layers are called Conv1D."""


@dataclass(frozen=True)
class GPT2Config:
    """The fields of a public config.json, under their public names but for the first six, which programs need.

    `inner` is the width of the feed-forward network. `tied`: the output layer is the table of embeddings.
    """

    vocab_size: int = 50257
    hidden_size: int = 768
    num_layers: int = 12
    num_key_value_heads: int = 12
    head_dim: int = 64
    max_positions: int = 1024
    inner: int = 3072
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tied: bool = True


def parse_config(raw: Mapping[str, Any]) -> GPT2Config:
    """A public GPT-2 config.json to GPT2Config; InputError names the field that cannot be honoured.

    >>> parse_config({"n_embd": 64, "n_head": 4}).head_dim
    16
    """
    refuse_quantized(raw)
    default = GPT2Config()
    if fields.read_bool(raw, "add_cross_attention", False):
        raise InputError("config.json: add_cross_attention must be false, found true: there is no encoder")
    size = fields.read_int(raw, "n_embd", default.hidden_size)
    heads = fields.read_int(raw, "n_head", default.num_key_value_heads)
    fields.check_heads(size, heads, "n_embd")
    return GPT2Config(
        vocab_size=fields.read_int(raw, "vocab_size", default.vocab_size),
        hidden_size=size,
        num_layers=fields.read_int(raw, "n_layer", default.num_layers),
        num_key_value_heads=heads,
        head_dim=size // heads,
        max_positions=fields.read_int(raw, "n_positions", default.max_positions),
        inner=4 * size if raw.get("n_inner") is None else fields.read_int(raw, "n_inner", default.inner),
        activation_function=fields.read_choice(raw, "activation_function", default.activation_function, ACTIVATIONS),
        layer_norm_epsilon=fields.read_float(raw, "layer_norm_epsilon", default.layer_norm_epsilon),
        scale_attn_weights=fields.read_bool(raw, "scale_attn_weights", True),
        scale_attn_by_inverse_layer_idx=fields.read_bool(raw, "scale_attn_by_inverse_layer_idx", False),
        tied=fields.read_bool(raw, "tie_word_embeddings", True),
    )


class _Attention(nn.Module):
    """The projections of a layer's attention: queries, keys and values in one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(size, 3 * size)
        self.c_proj = nn.Linear(size, size)


class _FeedForward(nn.Module):
    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, config.inner)
        self.c_proj = nn.Linear(config.inner, config.hidden_size)
        self.activation = ACTIVATIONS[config.activation_function]

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same."""
        out: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return out


class GPT2Layer(GeneratorLayer):
    """A block, normalised before each half."""

    def __init__(self, config: GPT2Config, number: int, kernel: AttentionKernel) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.attn = _Attention(config.hidden_size)
        self.ln_2 = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.mlp = _FeedForward(config)
        self.heads = config.num_key_value_heads
        self.attention = kernel
        self.scale = config.head_dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= number + 1

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        return self.heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its neurons alone: the caches have one shape for all layers."""
        yield neuron_group(self, name, 0, "mlp.c_fc", "mlp.c_proj")

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """See `GeneratorLayer.project`: each (..., C)."""
        queries, keys, values = self.attn.c_attn(self.ln_1(x)).chunk(3, dim=-1)
        return queries, keys, values

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """See `GeneratorLayer.finish`."""
        x = x + self.attn.c_proj(attended)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class GPT2(Generator):
    """The model, under the names of public checkpoints without their prefix."""

    def __init__(self, config: GPT2Config, kernel: AttentionKernel) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.wpe = nn.Embedding(config.max_positions, config.hidden_size)
        self.h = nn.ModuleList(GPT2Layer(config, number, kernel) for number in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.hidden_size, config.layer_norm_epsilon)
        self.lm_head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def blocks(self) -> Sequence[GPT2Layer]:
        """The layers."""
        return list(self.h)  # type: ignore[arg-type]

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """See `Generator.embed`."""
        out: Tensor = self.wte(tokens) + self.wpe(positions)
        return out

    def logits(self, x: Tensor) -> Tensor:
        """See `Generator.logits`."""
        weight = self.wte.weight if self.lm_head is None else self.lm_head.weight
        return nn.functional.linear(self.ln_f(x), weight)


def build(config: GPT2Config, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:  # noqa: ARG001
    """A GPT-2 in eval mode with untrained weights; it has no labels."""
    check_generation(task)
    return GPT2(config, attention).eval()


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public names to ours; weights of Conv1D are transposed.

    Raises:
        InputError: two public names mean the same.
    """
    return {name: _turned(name, tensor) for name, tensor in without_prefix(state, _PREFIX).items()}


def publish(state: Mapping[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:  # noqa: ARG001
    """The way back."""
    return {
        name if name.startswith("lm_head.") else _PREFIX + name: _turned(name, tensor) for name, tensor in state.items()
    }


def _turned(name: str, tensor: Tensor) -> Tensor:
    return tensor.t().contiguous() if name.endswith(_TRANSPOSED) and tensor.dim() == 2 else tensor


def _with_layers(
    raw: Mapping[str, Any], config: GPT2Config, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], GPT2Config]:
    count = len(left["h"])
    return {**raw, "n_layer": count}, replace(config, num_layers=count)


FAMILY = Family(
    name="gpt2",
    tasks=GENERATION_TASKS,
    parse_config=parse_config,
    build=build,
    rename=rename,
    publish=publish,
    # Causal masks that old checkpoints stored, and an output layer that is tied to the embeddings, written out.
    unused=("h.*.attn.bias", "h.*.attn.masked_bias", "lm_head.weight"),
    programs=generation_programs,
    parse_labels=no_labels,
    blocks=("model.h.*",),
    with_layers=_with_layers,
    sizes=MappingProxyType(
        {"gpt2": (("vocab_size", "n_embd"), ("n_positions", "n_embd"), ("n_layer", "n_embd", "n_embd"))}
    ),
    classes=("GPT2LMHeadModel",),
)
