"""BERT (Devlin et al. 2018), and what shares its architecture: DistilBERT, TinyBERT, MiniLM.

Module and parameter names are those of public BERT checkpoints. Key: B batch, S length, C hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

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

BASE = "bert"

_BERT_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)

_DISTILBERT_SIZES = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("dim", 768),
    "num_hidden_layers": ("n_layers", 6),
    "num_attention_heads": ("n_heads", 12),
    "intermediate_size": ("hidden_dim", 3072),
    "max_position_embeddings": ("max_position_embeddings", 512),
}
"""Our field: DistilBERT's name for it and its public default."""

_DISTILBERT_NAMES = (
    (r"^transformer\.layer\.", "encoder.layer."),
    (r"\.attention\.q_lin\.", ".attention.self.query."),
    (r"\.attention\.k_lin\.", ".attention.self.key."),
    (r"\.attention\.v_lin\.", ".attention.self.value."),
    (r"\.attention\.out_lin\.", ".attention.output.dense."),
    (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.ffn\.lin1\.", ".intermediate.dense."),
    (r"\.ffn\.lin2\.", ".output.dense."),
    (r"\.output_layer_norm\.", ".output.LayerNorm."),
)

_DISTILBERT_HEADS = (
    (r"^vocab_transform\.", "cls.predictions.transform.dense."),
    (r"^vocab_layer_norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^vocab_projector\.bias$", "cls.predictions.bias"),
    (r"^vocab_projector\.weight$", "cls.predictions.decoder.weight"),
)

_DISTILBERT_PARTS = (
    ("cls.predictions.transform.dense.", "vocab_transform."),
    ("cls.predictions.transform.LayerNorm.", "vocab_layer_norm."),
    ("cls.predictions.bias", "vocab_projector.bias"),
    ("cls.predictions.decoder.", "vocab_projector."),
    ("bert.encoder.layer.", "distilbert.transformer.layer."),
    ("bert.embeddings.", "distilbert.embeddings."),
    (".attention.self.query.", ".attention.q_lin."),
    (".attention.self.key.", ".attention.k_lin."),
    (".attention.self.value.", ".attention.v_lin."),
    (".attention.output.dense.", ".attention.out_lin."),
    (".attention.output.LayerNorm.", ".sa_layer_norm."),
    (".intermediate.dense.", ".ffn.lin1."),
    (".output.dense.", ".ffn.lin2."),
    (".output.LayerNorm.", ".output_layer_norm."),
)
"""The way back, in this order."""


@dataclass(frozen=True)
class BertConfig:
    """The fields of a public BertConfig that shape the computation.

    `distilbert` stands for the two differences of DistilBERT (Sanh et al. 2019): no token types (`type_vocab_size` 0),
    and a ReLU layer beside the classifier in place of the pooler.

    `layer_widths` has an entry per layer. Empty in the constructor: every layer is whole.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    distilbert: bool = False
    tie_word_embeddings: bool = True
    layer_widths: tuple[LayerWidths, ...] = ()

    def __post_init__(self) -> None:
        fields.check_heads(self.hidden_size, self.num_attention_heads, "hidden_size")
        if not self.layer_widths:
            whole = LayerWidths(self.num_attention_heads, (self.intermediate_size,))
            object.__setattr__(self, "layer_widths", (whole,) * self.num_hidden_layers)

    @property
    def head_dim(self) -> int:
        """D."""
        return self.hidden_size // self.num_attention_heads

    @property
    def input_names(self) -> tuple[str, ...]:
        """The programs' inputs, in order."""
        names = ("input_ids", "attention_mask")
        return names if self.distilbert else (*names, "token_type_ids")


def parse_config(raw: Mapping[str, Any]) -> BertConfig:
    """A public BERT or DistilBERT config.json to BertConfig; InputError names the field that cannot be honoured."""
    fields.refuse_unsupported_text(raw)
    if raw.get("model_type") == "distilbert":
        sizes: dict[str, Any] = {
            ours: fields.read_int(raw, name, default) for ours, (name, default) in _DISTILBERT_SIZES.items()
        }
        activation = fields.read_choice(raw, "activation", "gelu", ACTIVATIONS)
        config = BertConfig(**sizes, hidden_act=activation, type_vocab_size=0, distilbert=True)
        return _with_common(config, raw)
    default = BertConfig()
    sizes = {key: fields.read_int(raw, key, getattr(default, key)) for key in _BERT_SIZES}
    config = BertConfig(
        **sizes,
        hidden_act=fields.read_choice(raw, "hidden_act", default.hidden_act, ACTIVATIONS),
        layer_norm_eps=fields.read_float(raw, "layer_norm_eps", default.layer_norm_eps),
    )
    return _with_common(config, raw)


def _with_common(config: BertConfig, raw: Mapping[str, Any]) -> BertConfig:
    return replace(
        config,
        layer_widths=read_layer_widths(raw, "layer_widths", config.layer_widths),
        tie_word_embeddings=fields.read_bool(raw, "tie_word_embeddings", True),
    )


class Embeddings(nn.Module):
    """Word, position and token type embeddings, summed and normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = (
            nn.Embedding(config.type_vocab_size, config.hidden_size) if config.type_vocab_size else None
        )
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.position_ids = PositionIds(config.max_position_embeddings)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None = None) -> Tensor:
        """(B, S) and, where there are token types, (B, S) int32 to (B, S, C); positions (1, S), None: 0, 1, ..."""
        positions = self.position_ids.rows(self.position_embeddings, input_ids.shape[1], position_ids)
        x = self.word_embeddings(input_ids) + positions
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings(token_type_ids)
        out: Tensor = self.LayerNorm(x)
        return out


class SelfAttention(AttentionModule):
    """Multi-head self-attention without its output projection."""

    def __init__(self, config: BertConfig, num_heads: int, attention: AttentionKernel) -> None:
        super().__init__()
        width = num_heads * config.head_dim
        self.query = nn.Linear(config.hidden_size, width)
        self.key = nn.Linear(config.hidden_size, width)
        self.value = nn.Linear(config.hidden_size, width)
        self.num_heads = num_heads
        self.scale = config.head_dim**-0.5
        self.attention = attention

    def forward(self, tokens: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
        """tokens (B, T, C) attend to hidden (B, S, C) under bias (B, 1, 1, S), to (B, T, H*D)."""
        q = attention_heads(self.query(tokens), self.num_heads)
        k = attention_heads(self.key(hidden), self.num_heads)
        v = attention_heads(self.value(hidden), self.num_heads)
        return merge_heads(self.attention(q, k, v, bias, self.scale))


class DenseNorm(nn.Module):
    """A dense layer, the residual, and a layer norm."""

    def __init__(self, size_in: int, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(size_in, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(B, S, size_in) and (B, S, C) to (B, S, C)."""
        out: Tensor = self.LayerNorm(self.dense(x) + residual)
        return out


class AttentionBlock(nn.Module):
    """Attention with its output projection."""

    def __init__(self, config: BertConfig, num_heads: int, attention: AttentionKernel) -> None:
        super().__init__()
        self.self = SelfAttention(config, num_heads, attention)
        self.output = DenseNorm(num_heads * config.head_dim, config)

    def forward(self, tokens: Tensor, hidden: Tensor, bias: Tensor) -> Tensor:
        """tokens (B, T, C) attend to hidden (B, S, C) under bias (B, 1, 1, S), to (B, T, C)."""
        out: Tensor = self.output(self.self(tokens, hidden, bias), tokens)
        return out


class Intermediate(nn.Module):
    """The widening half of the feed-forward network."""

    def __init__(self, config: BertConfig, neurons: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, neurons)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C) to (B, S, neurons)."""
        return self.activation(self.dense(x))


class Layer(StackedLayer):
    """One transformer block, normalised after each half."""

    def __init__(self, config: BertConfig, widths: LayerWidths, attention: AttentionKernel) -> None:
        super().__init__()
        (neurons,) = widths.neurons
        self.attention = AttentionBlock(config, widths.heads, attention)
        self.intermediate = Intermediate(config, neurons)
        self.output = DenseNorm(neurons, config)

    def forward(self, hidden: Tensor, bias: Tensor, first_token_only: bool = False) -> Tensor:
        """hidden (B, S, C), bias (B, 1, 1, S) to (B, S, C), or (B, 1, C) if only the first token is wanted."""
        x = self.attention(hidden[:, :1] if first_token_only else hidden, hidden, bias)
        out: Tensor = self.output(self.intermediate(x), x)
        return out

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        return self.attention.self.num_heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its heads, and its neurons."""
        yield bert_head_group(name, self.attention.self)
        yield neuron_group(self, name, 0, "intermediate.dense", "output.dense")


class BertEncoder(TextEncoder):
    """BERT's, or DistilBERT's, which has no token types."""

    takes_positions = True

    def __init__(self, config: BertConfig, attention: AttentionKernel, pooler: bool, first_token_only: bool) -> None:
        layers = (Layer(config, widths, attention) for widths in config.layer_widths)
        super().__init__(Embeddings(config), layers, config.hidden_size if pooler else None, first_token_only)


def build(config: BertConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:
    """A TextClassifier, TextEmbedder, TokenScorer or MaskedLanguageModel in eval mode with untrained weights."""
    check_task(task, num_labels)
    if task == FILL_MASK:
        encoder = BertEncoder(config, attention, pooler=False, first_token_only=False)
        head = VocabularyHead(
            config.hidden_size,
            config.hidden_size,
            config.vocab_size,
            ACTIVATIONS[config.hidden_act],
            config.layer_norm_eps,
            config.tie_word_embeddings,
        )
        return MaskedLanguageModel(BASE, encoder, head).eval()
    if task in TOKEN_HEADS:
        encoder = BertEncoder(config, attention, pooler=False, first_token_only=False)
        return TokenScorer(BASE, encoder, config.hidden_size, task, num_labels).eval()
    if task == "text-embedding":
        return TextEmbedder(
            BASE, BertEncoder(config, attention, pooler=False, first_token_only=False), config.hidden_size
        ).eval()
    encoder = BertEncoder(config, attention, pooler=not config.distilbert, first_token_only=True)
    return TextClassifier(BASE, encoder, config.hidden_size, num_labels, pre_classifier=config.distilbert).eval()


def publish(state: Mapping[str, Tensor], config: BertConfig) -> dict[str, Tensor]:
    """Our names are BERT's; DistilBERT has its own."""
    return public_names(state, _DISTILBERT_PARTS if config.distilbert else ())


def _with_layers(
    raw: Mapping[str, Any], config: BertConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], BertConfig]:
    (numbers,) = left.values()
    return {**raw, "n_layers" if config.distilbert else "num_hidden_layers": len(numbers)}, config


FAMILY = Family(
    name="bert",
    tasks=TEXT_TASKS,
    parse_config=parse_config,
    build=build,
    rename=public_renamer(BASE, _DISTILBERT_NAMES, _DISTILBERT_HEADS),
    publish=publish,
    unused=(
        "cls.*",
        "qa_outputs.*",
        "fit_dense.*",  # TinyBERT's distillation head
        "fit_denses.*",
        "pre_classifier.*",
        "classifier.*",
        f"{BASE}.pooler.*",
        f"{BASE}.embeddings.position_ids",
    ),
    programs=text_programs,
    parse_labels=id2label,
    blocks=text_blocks(BASE),
    with_layers=_with_layers,
    sizes=MappingProxyType(
        {
            "bert": (
                ("vocab_size", "hidden_size"),
                ("max_position_embeddings", "hidden_size"),
                ("type_vocab_size", "hidden_size"),
                ("num_hidden_layers", "hidden_size", "hidden_size"),
                ("num_hidden_layers", "hidden_size", "intermediate_size"),
            ),
            "distilbert": (
                ("vocab_size", "dim"),
                ("max_position_embeddings", "dim"),
                ("n_layers", "dim", "dim"),
                ("n_layers", "dim", "hidden_dim"),
            ),
        }
    ),
    classifiers=MappingProxyType(
        {"bert": "BertForSequenceClassification", "distilbert": "DistilBertForSequenceClassification"}
    ),
)
