"""BERT (Devlin et al. 2018), and what shares its layers: DistilBERT, TinyBERT, MiniLM, RoBERTa, XLM-R, ELECTRA.

Module and parameter names are those of public BERT checkpoints. Key: B batch, S length, C hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
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
from edgeformer_runtime.errors import InputError

BASE = "bert"

_BERT_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size"),
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

_PROJECT = "bert.embeddings.project."
_HEADS = (
    (r"^(?:electra\.)?embeddings_project\.", _PROJECT),
    (r"^lm_head\.dense\.", "cls.predictions.transform.dense."),
    (r"^lm_head\.layer_norm\.", "cls.predictions.transform.LayerNorm."),
    (r"^lm_head\.(bias$|decoder\.)", r"cls.predictions.\1"),
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


_ROBERTA_PARTS = (
    ("cls.predictions.transform.dense.", "lm_head.dense."),
    ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
    ("cls.predictions.", "lm_head."),
)


@dataclass(frozen=True)
class Variant:
    """How an architecture differs from BERT outside of its layers.

    Attributes:
        base: what public checkpoints call the encoder.
        head_activation: between the two layers of its classifier; None: it has BERT's pooler, or DistilBERT's layer.
        counts_from_padding: whether the first position is the one behind the padding token's id.
        pad_token_id: the public default.
        defaults: other public defaults that are not BERT's.
    """

    base: str
    head_activation: type[nn.Module] | None = None
    counts_from_padding: bool = False
    pad_token_id: int = 0
    defaults: tuple[tuple[str, int], ...] = ()


_ROBERTA = Variant("roberta", nn.Tanh, counts_from_padding=True, pad_token_id=1)
_ELECTRA_DEFAULTS = (("hidden_size", 256), ("num_attention_heads", 4), ("intermediate_size", 1024))
VARIANTS = MappingProxyType(
    {
        "bert": Variant("bert"),
        "distilbert": Variant("distilbert"),
        "roberta": replace(_ROBERTA, defaults=(("vocab_size", 50265),)),  # Liu et al. 2019
        "camembert": _ROBERTA,  # Martin et al. 2020
        "xlm-roberta": _ROBERTA,  # Conneau et al. 2020
        "electra": Variant("electra", nn.GELU, defaults=_ELECTRA_DEFAULTS),  # Clark et al. 2020
    }
)
"""By `model_type`."""


@dataclass(frozen=True)
class BertConfig:
    """The fields of a public BertConfig that shape the computation.

    `distilbert` stands for the two differences of DistilBERT (Sanh et al. 2019): no token types (`type_vocab_size` 0),
    and a ReLU layer beside the classifier in place of the pooler.

    `max_position_embeddings` counts the positions that a text can have: the table begins `first_position` rows before.
    `embedding_size` is the width of the embeddings, which ELECTRA projects to `hidden_size` where they differ; 0 in the
    constructor: they do not. `layer_widths` has an entry per layer. Empty in the constructor: every layer is whole.
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
    variant: Variant = VARIANTS["bert"]
    pad_token_id: int = 0
    first_position: int = 0
    embedding_size: int = 0
    tie_word_embeddings: bool = True
    layer_widths: tuple[LayerWidths, ...] = ()

    def __post_init__(self) -> None:
        fields.check_heads(self.hidden_size, self.num_attention_heads, "hidden_size")
        if not self.embedding_size:
            object.__setattr__(self, "embedding_size", self.hidden_size)
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
        # BERTs of one type have had the input since the first bundles.
        typed = self.type_vocab_size > 1 or (self.type_vocab_size and not self.variant.counts_from_padding)
        return (*names, "token_type_ids") if typed else names


def parse_config(raw: Mapping[str, Any]) -> BertConfig:
    """A public config.json of a variant to BertConfig; InputError names the field that cannot be honoured."""
    fields.refuse_unsupported_text(raw)
    if raw.get("model_type") == "distilbert":
        sizes: dict[str, Any] = {
            ours: fields.read_int(raw, name, default) for ours, (name, default) in _DISTILBERT_SIZES.items()
        }
        activation = fields.read_choice(raw, "activation", "gelu", ACTIVATIONS)
        config = BertConfig(**sizes, hidden_act=activation, type_vocab_size=0, distilbert=True)
        return _with_common(config, raw)
    variant = VARIANTS[str(raw.get("model_type", "bert"))]
    default = BertConfig()
    stated = {**dict(variant.defaults), **raw}
    sizes = {key: fields.read_int(stated, key, getattr(default, key)) for key in _BERT_SIZES}
    padding = raw.get("pad_token_id", variant.pad_token_id) or 0
    first = padding + 1 if variant.counts_from_padding and isinstance(padding, int) else 0
    sizes["max_position_embeddings"] -= first
    if sizes["max_position_embeddings"] < 1:
        raise InputError(f"config.json: max_position_embeddings must be above {first}, which {variant.base} leaves out")
    embedded = fields.read_int(raw, "embedding_size", 128) if variant.base == "electra" else 0
    config = BertConfig(
        **sizes,
        variant=variant,
        pad_token_id=padding,
        first_position=first,
        embedding_size=embedded,
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
        width, positions = config.embedding_size, config.first_position + config.max_position_embeddings
        self.word_embeddings = nn.Embedding(config.vocab_size, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.position_ids = PositionIds(config.max_position_embeddings, config.first_position)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None = None) -> Tensor:
        """(B, S) and, where there are token types, (B, S) int32 to (B, S, C); positions (1, S), None: 0, 1, ..."""
        positions = self.position_ids.rows(self.position_embeddings, input_ids.shape[1], position_ids)
        x = self.word_embeddings(input_ids) + positions
        if self.token_type_embeddings is not None:
            one = self.token_type_embeddings.weight[0] if token_type_ids is None else None
            x = x + (self.token_type_embeddings(token_type_ids) if one is None else one)
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


def two_layer_head(hidden_size: int, num_labels: int, activation: nn.Module) -> nn.Module:
    """RoBERTa's and ELECTRA's classifier: the first token's (B, C) to (B, L)."""
    first, last = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, num_labels)
    return nn.Sequential(OrderedDict(dense=first, activation=activation, out_proj=last))


class ProjectedEmbeddings(Embeddings):
    """ELECTRA's, which are narrower than its layers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.project = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None = None) -> Tensor:
        """As `Embeddings`."""
        out: Tensor = self.project(super().forward(input_ids, token_type_ids, position_ids))
        return out


class BertEncoder(TextEncoder):
    """A variant's; DistilBERT has no token types."""

    takes_positions = True

    def __init__(self, config: BertConfig, attention: AttentionKernel, pooler: bool, first_token_only: bool) -> None:
        layers = (Layer(config, widths, attention) for widths in config.layer_widths)
        embeddings = Embeddings if config.embedding_size == config.hidden_size else ProjectedEmbeddings
        super().__init__(embeddings(config), layers, config.hidden_size if pooler else None, first_token_only)


def build(config: BertConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:
    """A TextClassifier, TextEmbedder, TokenScorer or MaskedLanguageModel in eval mode with untrained weights."""
    check_task(task, num_labels)
    activation, width = config.variant.head_activation, config.hidden_size
    whole = task in TOKEN_HEADS or task in (FILL_MASK, "text-embedding")
    pooler = not whole and not config.distilbert and activation is None
    encoder = BertEncoder(config, attention, pooler, first_token_only=not whole)
    if task == FILL_MASK:
        if config.embedding_size != width or config.variant.base == "electra":
            raise InputError("an electra fills masks with a generator, whose head is not here: choose another task")
        between = ACTIVATIONS["gelu" if config.variant.counts_from_padding else config.hidden_act]
        head = VocabularyHead(
            width, width, config.vocab_size, between, config.layer_norm_eps, config.tie_word_embeddings
        )
        return MaskedLanguageModel(BASE, encoder, head).eval()
    if task in TOKEN_HEADS:
        return TokenScorer(BASE, encoder, width, task, num_labels).eval()
    if task == "text-embedding":
        return TextEmbedder(BASE, encoder, width).eval()
    made = TextClassifier(BASE, encoder, width, num_labels, pre_classifier=config.distilbert)
    if activation is not None:
        made.classifier = two_layer_head(width, num_labels, activation())
    return made.eval()


def publish(state: Mapping[str, Tensor], config: BertConfig) -> dict[str, Tensor]:
    """Our names are BERT's; the variants have their own."""
    base = f"{config.variant.base}."
    parts: tuple[tuple[str, str], ...] = ((_PROJECT, f"{base}embeddings_project."), (f"{BASE}.", base))
    if config.variant.counts_from_padding:
        parts += _ROBERTA_PARTS
    return public_names(state, _DISTILBERT_PARTS if config.distilbert else parts)


def _with_layers(
    raw: Mapping[str, Any], config: BertConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], BertConfig]:
    (numbers,) = left.values()
    return {**raw, "n_layers" if config.distilbert else "num_hidden_layers": len(numbers)}, config


_PRODUCTS = tuple(("num_hidden_layers", "hidden_size", width) for width in ("hidden_size", "intermediate_size"))
_EMBEDDED = tuple((field, "hidden_size") for field in ("vocab_size", "max_position_embeddings", "type_vocab_size"))
_PROJECTED = tuple((field, "embedding_size") for field, _ in _EMBEDDED)
_IN_DISTILBERT = (("vocab_size",), ("max_position_embeddings",), ("n_layers", "dim"), ("n_layers", "hidden_dim"))
_CLASSES = dict(zip(VARIANTS, ("Bert", "DistilBert", "Roberta", "Camembert", "XLMRoberta", "Electra"), strict=True))

FAMILY = Family(
    name="bert",
    tasks=TEXT_TASKS,
    parse_config=parse_config,
    build=build,
    rename=public_renamer(BASE, _DISTILBERT_NAMES, _HEADS),
    publish=publish,
    unused=(
        *("cls.*", "qa_outputs.*", "pre_classifier.*", "classifier.*"),
        *("discriminator_predictions.*", "generator_predictions.*", "generator_lm_head.*"),
        *("fit_dense.*", "fit_denses.*"),  # TinyBERT's distillation head
        *(f"{BASE}.pooler.*", f"{BASE}.embeddings.position_ids"),
    ),
    programs=text_programs,
    parse_labels=id2label,
    blocks=text_blocks(BASE),
    with_layers=_with_layers,
    sizes=MappingProxyType(
        {
            **dict.fromkeys(VARIANTS, (*_EMBEDDED, *_PRODUCTS)),
            "distilbert": tuple((*each, "dim") for each in _IN_DISTILBERT),
            "electra": (*_PROJECTED, *_PRODUCTS),
        }
    ),
    classifiers=MappingProxyType({name: f"{prefix}ForSequenceClassification" for name, prefix in _CLASSES.items()}),
)
