"""MobileBERT (Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices").

Module and parameter names are those of public checkpoints. Key: B batch, S length, E embedding size, C hidden size,
W width inside a block (C, or the bottleneck's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import AttentionKernel
from edgeformer.models import config as fields
from edgeformer.models.config import LayerWidths, read_layer_widths
from edgeformer.models.family import Family
from edgeformer.models.masked_lm import FILL_MASK, MaskedLanguageModel, VocabularyHead
from edgeformer.models.text import (
    ACTIVATIONS,
    TEXT_TASKS,
    TOKEN_HEADS,
    PositionIds,
    TextClassifier,
    TextEmbedder,
    TextEncoder,
    TokenScorer,
    attention_heads,
    check_task,
    id2label,
    merge_heads,
    public_names,
    public_renamer,
    text_blocks,
    text_programs,
)
from edgeformer.models.units import AttentionModule, StackedLayer, UnitGroup, bert_head_group, neuron_group
from edgeformer_runtime.errors import InputError

BASE = "mobilebert"
NORMALIZATION_TYPES = ("layer_norm", "no_norm")
_TORCH_LAYER_NORM_EPS = 1e-5
"""The public implementation passes layer_norm_eps to some of its norms and leaves torch's default in the others."""


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "embedding_size",
    "intra_bottleneck_size",
    "num_feedforward_networks",
)
_FLAGS = (
    "trigram_input",
    "use_bottleneck",
    "use_bottleneck_attention",
    "key_query_shared_bottleneck",
    "classifier_activation",
    "tie_word_embeddings",
)


@dataclass(frozen=True)
class MobileBertConfig:
    """The fields of a public MobileBertConfig that shape the computation.

    `layer_widths` has an entry per layer. Empty in the constructor: every layer is whole.
    """

    vocab_size: int = 30522
    hidden_size: int = 512
    num_hidden_layers: int = 24
    num_attention_heads: int = 4
    intermediate_size: int = 512
    hidden_act: str = "relu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    embedding_size: int = 128
    trigram_input: bool = True
    use_bottleneck: bool = True
    intra_bottleneck_size: int = 128
    use_bottleneck_attention: bool = False
    key_query_shared_bottleneck: bool = True
    num_feedforward_networks: int = 4
    normalization_type: str = "no_norm"
    classifier_activation: bool = True
    tie_word_embeddings: bool = True
    layer_widths: tuple[LayerWidths, ...] = ()

    input_names = ("input_ids", "attention_mask", "token_type_ids")

    def __post_init__(self) -> None:
        fields.check_heads(
            self.block_width,
            self.num_attention_heads,
            "intra_bottleneck_size" if self.use_bottleneck else "hidden_size",
        )
        unshared = self.use_bottleneck and not self.use_bottleneck_attention and not self.key_query_shared_bottleneck
        if unshared and self.hidden_size != self.intra_bottleneck_size:
            raise InputError(
                "config.json: intra_bottleneck_size must equal hidden_size where neither key_query_shared_bottleneck "
                f"nor use_bottleneck_attention is set, found {self.intra_bottleneck_size} and {self.hidden_size}"
            )
        if not self.layer_widths:
            whole = LayerWidths(self.num_attention_heads, (self.intermediate_size,) * self.num_feedforward_networks)
            object.__setattr__(self, "layer_widths", (whole,) * self.num_hidden_layers)

    @property
    def block_width(self) -> int:
        """W, the width inside a block."""
        return self.intra_bottleneck_size if self.use_bottleneck else self.hidden_size

    @property
    def head_dim(self) -> int:
        """D."""
        return self.block_width // self.num_attention_heads


def parse_config(raw: Mapping[str, Any]) -> MobileBertConfig:
    """A public config.json to MobileBertConfig; InputError names the field that cannot be honoured."""
    fields.refuse_unsupported_text(raw)
    default = MobileBertConfig()
    values: dict[str, Any] = {key: fields.read_int(raw, key, getattr(default, key)) for key in _SIZES}
    values |= {key: fields.read_bool(raw, key, getattr(default, key)) for key in _FLAGS}
    config = MobileBertConfig(
        **values,
        hidden_act=fields.read_choice(raw, "hidden_act", default.hidden_act, ACTIVATIONS),
        layer_norm_eps=fields.read_float(raw, "layer_norm_eps", default.layer_norm_eps),
        normalization_type=fields.read_choice(
            raw, "normalization_type", default.normalization_type, NORMALIZATION_TYPES
        ),
    )
    return replace(config, layer_widths=read_layer_widths(raw, "layer_widths", config.layer_widths))


class NoNorm(nn.Module):
    """MobileBERT's replacement of layer normalisation: an element-wise affine map (section 3.5)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, size) to the same."""
        return x * self.weight + self.bias


def _norm(config: MobileBertConfig, size: int, eps: float | None = None) -> nn.Module:
    if config.normalization_type == "no_norm":
        return NoNorm(size)
    return nn.LayerNorm(size, eps=_TORCH_LAYER_NORM_EPS if eps is None else eps)


class Embeddings(nn.Module):
    """Narrow word embeddings, widened by a convolution over three neighbours (section 3.2)."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.trigram_input = config.trigram_input
        self.widen = config.trigram_input or config.embedding_size != config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        # Present in checkpoints even where the sizes are equal and it is not used.
        self.embedding_transformation = nn.Linear(
            config.embedding_size * (3 if config.trigram_input else 1), config.hidden_size
        )
        self.LayerNorm = _norm(config, config.hidden_size)
        self.position_ids = PositionIds(config.max_position_embeddings)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        """(B, S) and (B, S) int32 to (B, S, C); positions (1, S) where several texts share the row, each from 0 on."""
        words = self.word_embeddings(input_ids)  # (B, S, E)
        if self.trigram_input:
            following = F.pad(words[:, 1:], (0, 0, 0, 1))
            preceding = F.pad(words[:, :-1], (0, 0, 1, 0))
            if position_ids is not None:  # nobody's neighbour is of another text
                goes_on = position_ids.float().clamp(max=1.0)[..., None]  # (1, S, 1): 0 where a text starts
                preceding = preceding * goes_on
                following = following * F.pad(goes_on[:, 1:], (0, 0, 0, 1))
            words = torch.cat((following, words, preceding), dim=2)  # (B, S, 3E)
        if self.widen:
            words = self.embedding_transformation(words)  # (B, S, C)
        positions = self.position_ids.rows(self.position_embeddings, input_ids.shape[1], position_ids)
        out: Tensor = self.LayerNorm(words + positions + self.token_type_embeddings(token_type_ids))
        return out


class DenseNorm(nn.Module):
    """A dense layer, a residual where there is one, and a norm: the brick that MobileBERT is built from."""

    def __init__(self, config: MobileBertConfig, size_in: int, size_out: int, eps: float | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(size_in, size_out)
        self.LayerNorm = _norm(config, size_out, eps)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, S, size_in) and residual (B, S, size_out) to (B, S, size_out)."""
        x = self.dense(x)
        out: Tensor = self.LayerNorm(x if residual is None else x + residual)
        return out


class SelfAttention(AttentionModule):
    """Multi-head attention whose queries and keys may come from another width than its values."""

    def __init__(self, config: MobileBertConfig, num_heads: int, attention: AttentionKernel) -> None:
        super().__init__()
        width, attended = config.block_width, num_heads * config.head_dim
        value_width = width if config.use_bottleneck_attention else config.hidden_size
        self.query = nn.Linear(width, attended)
        self.key = nn.Linear(width, attended)
        self.value = nn.Linear(value_width, attended)
        self.num_heads = num_heads
        self.scale = config.head_dim**-0.5
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """query, key (B, S, W), value (B, S, W or C), bias (B, 1, 1, S) to (B, S, H*D)."""
        q = attention_heads(self.query(query), self.num_heads)
        k = attention_heads(self.key(key), self.num_heads)
        v = attention_heads(self.value(value), self.num_heads)
        return merge_heads(self.attention(q, k, v, bias, self.scale))


class AttentionBlock(nn.Module):
    """Attention and its output projection."""

    def __init__(self, config: MobileBertConfig, num_heads: int, attention: AttentionKernel) -> None:
        super().__init__()
        self.self = SelfAttention(config, num_heads, attention)
        self.output = DenseNorm(config, num_heads * config.head_dim, config.block_width, config.layer_norm_eps)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, residual: Tensor, bias: Tensor) -> Tensor:
        """Four times (B, S, W), value (B, S, W or C), to (B, S, W)."""
        out: Tensor = self.output(self.self(query, key, value, bias), residual)
        return out


class Bottleneck(nn.Module):
    """The linear maps from C into a block's width W (section 3.1)."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.use_bottleneck_attention = config.use_bottleneck_attention
        size, width, eps = config.hidden_size, config.intra_bottleneck_size, config.layer_norm_eps
        self.input = DenseNorm(config, size, width, eps)
        self.attention = DenseNorm(config, size, width, eps) if config.key_query_shared_bottleneck else None

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """hidden (B, S, C) to the input of queries and keys, the input of values, and the residual (B, S, W)."""
        narrow = self.input(hidden)
        if self.use_bottleneck_attention:
            return narrow, narrow, narrow
        return (hidden if self.attention is None else self.attention(hidden)), hidden, narrow


class Intermediate(nn.Module):
    """The widening half of a feed-forward network."""

    def __init__(self, config: MobileBertConfig, neurons: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.block_width, neurons)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) to (B, S, neurons)."""
        return self.activation(self.dense(x))


class FeedForward(nn.Module):
    """One of the stacked feed-forward networks (section 3.3)."""

    def __init__(self, config: MobileBertConfig, neurons: int) -> None:
        super().__init__()
        self.intermediate = Intermediate(config, neurons)
        self.output = DenseNorm(config, neurons, config.block_width, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) to (B, S, W)."""
        out: Tensor = self.output(self.intermediate(x), x)
        return out


class Output(DenseNorm):
    """The last feed-forward network's second half, and the way back from W to C."""

    def __init__(self, config: MobileBertConfig, neurons: int) -> None:
        super().__init__(config, neurons, config.block_width)
        self.bottleneck = (
            DenseNorm(config, config.block_width, config.hidden_size, config.layer_norm_eps)
            if config.use_bottleneck
            else None
        )

    def widen(self, x: Tensor, hidden: Tensor) -> Tensor:
        """x (B, S, W) with the block's input hidden (B, S, C) to (B, S, C)."""
        return x if self.bottleneck is None else self.bottleneck(x, hidden)


class Layer(StackedLayer):
    """One block: bottleneck, attention, stacked feed-forward networks, and back."""

    def __init__(self, config: MobileBertConfig, widths: LayerWidths, attention: AttentionKernel) -> None:
        super().__init__()
        *stacked, last = widths.neurons
        self.bottleneck = Bottleneck(config) if config.use_bottleneck else None
        self.attention = AttentionBlock(config, widths.heads, attention)
        self.ffn = nn.ModuleList(FeedForward(config, neurons) for neurons in stacked)
        self.intermediate = Intermediate(config, last)
        self.output = Output(config, last)

    def forward(self, hidden: Tensor, bias: Tensor, first_token_only: bool = False) -> Tensor:
        """hidden (B, S, C), bias (B, 1, 1, S) to (B, S, C), or (B, 1, C) if only the first token is wanted."""
        query, value, residual = (hidden,) * 3 if self.bottleneck is None else self.bottleneck(hidden)
        key = query
        if first_token_only:
            query, residual, hidden = query[:, :1], residual[:, :1], hidden[:, :1]
        x = self.attention(query, key, value, residual, bias)
        for network in self.ffn:
            x = network(x)
        return self.output.widen(self.output(self.intermediate(x), x), hidden)

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        return self.attention.self.num_heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its heads, and the neurons of each of its feed-forward networks."""
        yield bert_head_group(name, self.attention.self)
        for network, prefix in enumerate([*(f"ffn.{number}." for number in range(len(self.ffn))), ""]):
            yield neuron_group(self, name, network, f"{prefix}intermediate.dense", f"{prefix}output.dense")


class MobileBertEncoder(TextEncoder):
    """MobileBERT's, whose embeddings see their neighbours."""

    embeddings: Embeddings
    takes_positions = True

    def __init__(
        self, config: MobileBertConfig, attention: AttentionKernel, pooler: bool, first_token_only: bool
    ) -> None:
        layers = (Layer(config, widths, attention) for widths in config.layer_widths)
        super().__init__(Embeddings(config), layers, config.hidden_size if pooler else None, first_token_only)

    def silence_padding(self, pad_token_id: int) -> bool:
        """The convolution over three neighbours would see padding behind the last token, where a text ends in zeros."""
        row = self.embeddings.word_embeddings.weight.detach()[pad_token_id]
        if not self.embeddings.trigram_input or not row.any():
            return False
        row.zero_()
        return True


def build(config: MobileBertConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:
    """A TextClassifier, TextEmbedder, TokenScorer or MaskedLanguageModel in eval mode with untrained weights."""
    check_task(task, num_labels)
    if task == FILL_MASK:
        encoder = MobileBertEncoder(config, attention, pooler=False, first_token_only=False)
        head = VocabularyHead(
            config.hidden_size,
            config.embedding_size,
            config.vocab_size,
            ACTIVATIONS[config.hidden_act],
            config.layer_norm_eps,
            config.tie_word_embeddings,
        )
        return MaskedLanguageModel(BASE, encoder, head).eval()
    if task in TOKEN_HEADS:
        encoder = MobileBertEncoder(config, attention, pooler=False, first_token_only=False)
        return TokenScorer(BASE, encoder, config.hidden_size, task, num_labels).eval()
    if task == "text-embedding":
        return TextEmbedder(
            BASE, MobileBertEncoder(config, attention, pooler=False, first_token_only=False), config.hidden_size
        ).eval()
    encoder = MobileBertEncoder(config, attention, pooler=config.classifier_activation, first_token_only=True)
    return TextClassifier(BASE, encoder, config.hidden_size, num_labels).eval()


def publish(state: Mapping[str, Tensor], config: MobileBertConfig) -> dict[str, Tensor]:  # noqa: ARG001
    """Our names are the public ones."""
    return public_names(state)


def _with_layers(
    raw: Mapping[str, Any], config: MobileBertConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], MobileBertConfig]:
    (numbers,) = left.values()
    return {**raw, "num_hidden_layers": len(numbers)}, config


FAMILY = Family(
    name="mobilebert",
    tasks=TEXT_TASKS,
    parse_config=parse_config,
    build=build,
    rename=public_renamer(BASE),
    publish=publish,
    unused=("cls.*", "qa_outputs.*", "classifier.*", f"{BASE}.pooler.*", f"{BASE}.embeddings.position_ids"),
    programs=text_programs,
    parse_labels=id2label,
    blocks=text_blocks(BASE),
    with_layers=_with_layers,
    sizes=MappingProxyType(
        {
            "mobilebert": (
                ("vocab_size", "embedding_size"),
                ("max_position_embeddings", "hidden_size"),
                ("type_vocab_size", "hidden_size"),
                ("num_hidden_layers", "intra_bottleneck_size", "intra_bottleneck_size"),
                ("num_hidden_layers", "intra_bottleneck_size", "intermediate_size"),
                ("num_hidden_layers", "num_feedforward_networks"),
                ("hidden_size", "embedding_size"),
            )
        }
    ),
    classifiers=MappingProxyType({"mobilebert": "MobileBertForSequenceClassification"}),
)
