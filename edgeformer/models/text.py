"""What the text families share: pooling, the heads of the tasks, and the programs of a bucketed text model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention.kernels import ANY_LENGTH, additive_mask
from edgeformer.models.family import Program, ProgramOptions, unwrapped
from edgeformer.models.pooling import CLS, MEAN, EmbeddingHead, SentenceHead, l2_normalize, masked_mean
from edgeformer.models.units import AttentionModule
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

TOKEN_HEADS = {"question-answering": "qa_outputs", "token-classification": "classifier"}
"""What public checkpoints call the layer that scores each token, by task."""
TEXT_TASKS = ("text-classification", "text-embedding", "text-scoring", "fill-mask", *TOKEN_HEADS)
SPAN_ENDS = 2
"""Scores of a token in question answering: that the answer starts there, and that it ends there."""

TWO_LABELS = (
    "leave --task out for text-scoring, or add a label before it, with a row of zeros in classifier.weight and in "
    "classifier.bias; the softmax of the second label is then the sigmoid of the checkpoint's score"
)
"""What to do about one label."""


class TextConfig(Protocol):
    """What all that is common to texts needs to know of a text family's config."""

    @property
    def vocab_size(self) -> int:
        """How many tokens have an embedding."""

    @property
    def type_vocab_size(self) -> int:
        """How many kinds of tokens there are: of one text or of two."""

    @property
    def hidden_size(self) -> int:
        """C."""

    @property
    def max_position_embeddings(self) -> int:
        """The longest S."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """The programs' inputs, in the order of `forward`."""


class Pooler(nn.Module):
    """BERT's pooler: a dense layer with tanh on the first token (Devlin et al. 2018)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """(B, C) to (B, C)."""
        return torch.tanh(self.dense(first))


class Layers(nn.Module):
    """A stack of blocks, each `block(hidden, bias, first_token_only)`.

    A classifier reads the first token alone, so the last block need not compute the others: exact, and 3 % of
    MobileBERT's 24 layers or a fifth of a model of four.
    """

    def __init__(self, blocks: Iterable[nn.Module], first_token_only: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(blocks)
        self.first_token_only = first_token_only

    def forward(self, hidden: Tensor, bias: Tensor, all_tokens: bool = False) -> Tensor:
        """hidden (B, S, C), bias (B, 1, 1 or S, S) to (B, S, C), or (B, 1, C) if only the first token is wanted."""
        last = len(self.layer) - 1
        for index, block in enumerate(self.layer):
            hidden = block(hidden, bias, self.first_token_only and index == last and not all_tokens)
        return hidden


class TextEncoder(nn.Module):
    """Base of the encoders: token ids to hidden states."""

    mask_value: float | None = None  # what hidden positions add to their scores; None: the usual
    takes_positions = False  # as a third argument of the embeddings: texts that share a row need it

    def __init__(
        self, embeddings: nn.Module, blocks: Iterable[nn.Module], pooler_size: int | None, first_token_only: bool
    ) -> None:
        """`pooler_size`: C of the pooler, which is held for the classifier; None: there is none."""
        super().__init__()
        self.embeddings = embeddings
        self.encoder = Layers(blocks, first_token_only)
        self.pooler = None if pooler_size is None else Pooler(pooler_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(B, S) int32 each, token_type_ids None where the model has none, to (B, S or 1, C) float32."""
        bias = additive_mask(attention_mask, self.mask_value)
        return cast(Tensor, self.encoder(self.embeddings(input_ids, token_type_ids), bias))

    def silence_padding(self, pad_token_id: int) -> bool:  # noqa: ARG002
        """Keep padding from the embeddings of the tokens beside it; whether weights had to change for that."""
        return False


class PositionIds(nn.Module):
    """Position ids from `first` on as a constant: what exporters handle without computing shapes at run time."""

    ids: Tensor

    def __init__(self, longest: int, first: int = 0) -> None:
        super().__init__()
        self.first = first
        self.register_buffer("ids", torch.arange(first, first + longest, dtype=torch.int32)[None], persistent=False)

    def rows(self, table: nn.Embedding, seq_len: int, position_ids: Tensor | None) -> Tensor:
        """A table's rows (1, S, C) of positions (1, S) below S, from `first` on; None: of all, a constant."""
        if position_ids is None:
            return cast(Tensor, table(self.ids[:, :seq_len]))
        return table.weight[self.first : self.first + seq_len].index_select(0, position_ids[0])[None]


class TextModel(nn.Module):
    """An encoder under the name that its public checkpoints give it, so that state dicts need no translation."""

    output_name: str
    more_inputs: tuple[str, ...] = ()
    pooling: str | None = CLS  # None: each token has its own output

    def __init__(self, base: str, encoder: TextEncoder, output_dim: int) -> None:
        super().__init__()
        self.add_module(base, encoder)
        self.base, self.output_dim = base, output_dim

    @property
    def encoder(self) -> TextEncoder:
        """The encoder, whatever its public name."""
        return cast(TextEncoder, self.get_submodule(self.base))

    def input_names(self, config: TextConfig) -> tuple[str, ...]:
        """The programs' inputs, in the order of `forward`: token types, which not every encoder has, are the last."""
        return (*config.input_names[:2], *self.more_inputs, *config.input_names[2:])

    def output_shape(self, seq_len: int) -> tuple[int, ...]:  # noqa: ARG002
        """Of the output for an input of S tokens."""
        return (1, self.output_dim)

    def head(self, hidden: Tensor) -> Tensor:
        """The output of each text's one vector, (B, C) to (B, D), or of each token's, (B, S, C) to (B, S, D)."""
        raise NotImplementedError


class TextClassifier(TextModel):
    """Logits from the first token, through the encoder's pooler or DistilBERT's pre_classifier where there is one."""

    output_name = "logits"

    def __init__(
        self, base: str, encoder: TextEncoder, hidden_size: int, num_labels: int, pre_classifier: bool = False
    ) -> None:
        super().__init__(base, encoder, num_labels)
        self.pre_classifier = nn.Linear(hidden_size, hidden_size) if pre_classifier else None
        self.classifier: nn.Module = nn.Linear(hidden_size, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        """input_ids, attention_mask, token_type_ids (B, S) int32 to (logits (B, L) float32,)."""
        return (self.head(self.encoder(input_ids, attention_mask, token_type_ids)[:, 0]),)

    def head(self, hidden: Tensor) -> Tensor:
        """The first tokens' (B, C) to (B, L)."""
        if self.encoder.pooler is not None:
            hidden = self.encoder.pooler(hidden)
        if self.pre_classifier is not None:
            hidden = F.relu(self.pre_classifier(hidden))
        return cast(Tensor, self.classifier(hidden))


class TextEmbedder(TextModel):
    """Masked mean of the hidden states, scaled to L2 norm 1 (Reimers and Gurevych 2019, Sentence-BERT); or as set."""

    output_name = "embedding"
    pooling: str = MEAN

    def __init__(self, base: str, encoder: TextEncoder, output_dim: int) -> None:
        super().__init__(base, encoder, output_dim)
        self.hidden_size = output_dim
        self.sentence: SentenceHead | None = None

    def set_head(self, head: EmbeddingHead, longest: int) -> None:
        """Make another embedding of the tokens, of which there are up to `longest`; its dense layers are untrained."""
        self.sentence = SentenceHead(head, self.hidden_size, longest).eval()
        self.output_dim = self.sentence.output_dim
        self.pooling = " ".join(head.poolings)
        self.encoder.encoder.first_token_only = head.poolings == (CLS,)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        """input_ids, attention_mask, token_type_ids (B, S) int32 to (embedding (B, D) float32,)."""
        hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        pooled = (
            masked_mean(hidden, attention_mask) if self.sentence is None else self.sentence.pool(hidden, attention_mask)
        )
        return (self.head(pooled),)

    def head(self, hidden: Tensor) -> Tensor:
        """Pooled vectors (B, P*C) to embeddings (B, D)."""
        return l2_normalize(hidden) if self.sentence is None else cast(Tensor, self.sentence(hidden))


class TokenScorer(TextModel):
    """Logits of every token from its hidden state: labels, or the two ends of an answer (Devlin et al. 2018, 4.2)."""

    output_name = "logits"
    pooling = None

    def __init__(self, base: str, encoder: TextEncoder, hidden_size: int, task: str, num_labels: int) -> None:
        width = num_labels or SPAN_ENDS
        super().__init__(base, encoder, width)
        self.layer = TOKEN_HEADS[task]
        self.add_module(self.layer, nn.Linear(hidden_size, width))

    def output_shape(self, seq_len: int) -> tuple[int, ...]:
        """(1, S, L)."""
        return (1, seq_len, self.output_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        """input_ids, attention_mask, token_type_ids (B, S) int32 to (logits (B, S, L) float32,)."""
        return (self.head(self.encoder(input_ids, attention_mask, token_type_ids)),)

    def head(self, hidden: Tensor) -> Tensor:
        """Every token's vector (B, S, C) to logits (B, S, L)."""
        return cast(Tensor, self.get_submodule(self.layer)(hidden))


def text_blocks(base: str) -> tuple[str, ...]:
    """The parts of a text model that are compared one by one, below the name that checkpoints give the encoder."""
    return (f"{base}.embeddings", f"{base}.encoder.layer.*", f"{base}.pooler", "pre_classifier")


def compute_all_tokens(module: nn.Module) -> None:
    """Make a text model compute every token of its last block, as public implementations do; others stay."""
    if isinstance(module, TextModel):
        module.encoder.encoder.first_token_only = False


def attention_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, S, H*D) to (B, H, S, D)."""
    batch, seq_len, width = x.shape
    return x.reshape(batch, seq_len, num_heads, width // num_heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, S, D) to (B, S, H*D)."""
    batch, num_heads, seq_len, head_dim = x.shape
    return x.transpose(1, 2).reshape(batch, seq_len, num_heads * head_dim)


def check_task(task: str, num_labels: int) -> None:
    """Refuse a task that text families do not have, and a classifier without a choice to make."""
    if task not in TEXT_TASKS:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(TEXT_TASKS)}")
    if task == "text-classification" and num_labels < 2:
        raise InputError(f"text-classification needs at least 2 labels, found {num_labels}: {TWO_LABELS}")
    if task == "text-scoring" and num_labels != 1:
        raise InputError(f"text-scoring needs one label, found {num_labels}: its task is text-classification")
    if task == "token-classification" and num_labels < 1:
        raise InputError("token-classification needs labels, found none")


def id2label(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of a public text config, LABEL_0 and on where it names none; InputError if there are gaps."""
    named = raw.get("id2label")
    if named is None:
        count = raw.get("num_labels", 2)  # the public default
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"config.json: num_labels must be an integer of at least 1, found {count!r}")
        return tuple(f"LABEL_{number}" for number in range(count))
    try:
        by_id = {int(number): _label(label) for number, label in named.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError("config.json: id2label must map the numbers of the labels to their names") from None
    if sorted(by_id) != list(range(len(by_id))):
        raise InputError(
            f"config.json: id2label must number its labels from 0 without gaps, found {shorten(sorted(by_id), 60)}: "
            "add the missing ones, or name all with a file of labels (--labels)"
        )
    return tuple(by_id[number] for number in range(len(by_id)))


def _label(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        raise TypeError
    return str(value)


def text_programs(module: nn.Module, config: TextConfig, options: ProgramOptions) -> tuple[Program, ...]:
    """One program `seq_<S>` per bucket, shortest first, all on the same module and so on the same weights."""
    if not isinstance(module, TextModel):
        raise TypeError(f"expected a text model, found {type(module).__name__}")
    seq_lens = options.seq_lens
    if not seq_lens:
        raise InputError("expected at least one sequence length, found none")
    longest = config.max_position_embeddings
    for seq_len in seq_lens:
        if not 2 <= seq_len <= longest:
            raise InputError(f"sequence length must be between 2 and this model's {longest}, found {seq_len}")
    any_length = max(seq_lens) <= longest_of_any(module)
    return tuple(
        Program(
            name=f"seq_{seq_len}",
            module=module,
            inputs=tuple(TensorSpec(name, "int32", (1, seq_len)) for name in module.input_names(config)),
            outputs=(TensorSpec(module.output_name, "float32", module.output_shape(seq_len)),),
            any_length=any_length,
            alike="seq" if any_length else "",
        )
        for seq_len in sorted(set(seq_lens))
    )


def longest_of_any(module: nn.Module) -> int:
    """Up to how many positions a model computes alike whatever the length; 0: its attention has loops over them."""
    kernels = [each.attention for each in module.modules() if isinstance(each, AttentionModule)]
    return min((ANY_LENGTH.get(kernel, 0) for kernel in kernels), default=0)


# The activations that public text configs name in `hidden_act`.


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def _relu_squared(x: Tensor) -> Tensor:
    return torch.square(F.relu(x))


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    # Five public names for the tanh approximation of Hendrycks and Gimpel 2016, equal up to rounding.
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_accurate": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python_tanh": _gelu_tanh,
    "hardswish": F.hardswish,
    "leaky_relu": F.leaky_relu,
    "linear": _identity,
    "mish": F.mish,
    "quick_gelu": _quick_gelu,
    "relu": F.relu,
    "relu2": _relu_squared,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


# The spellings of parameter names in public BERT-like checkpoints, brought to one.


_BASE_PART = re.compile(r"^(?:[\w.]+\.)??((?:embeddings|encoder|transformer|pooler)\..+)$")
"""The encoder's parts after any prefix: `bert.`, none (base models), `module.bert.`, `0.auto_model.` and the like."""

_OLD_NORMS = ((".gamma", ".weight"), (".beta", ".bias"))
"""Names of TensorFlow's first BERT checkpoints."""


def public_renamer(
    base: str, parts: tuple[tuple[str, str], ...] = (), heads: tuple[tuple[str, str], ...] = ()
) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    """A function from public state dicts to ours.

    Args:
        base: our name of the encoder, without a dot.
        parts: (regular expression, replacement) for names inside the encoder that differ from ours.
        heads: the same for names outside of it.
    """

    def our_name(public: str) -> str:
        name = public
        for old, new in _OLD_NORMS:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        inside = _BASE_PART.match(name)
        name = unwrapped(name) if inside is None else inside.group(1)
        for pattern, replacement in heads if inside is None else parts:
            name = re.sub(pattern, replacement, name)
        return name if inside is None else f"{base}.{name}"

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        sources: dict[str, str] = {}
        for public in state:
            ours = our_name(public)
            if ours in sources:
                raise InputError(f"checkpoint holds {ours} twice, as {sources[ours]} and as {public}: remove one")
            sources[ours] = public
        return {ours: state[public] for ours, public in sources.items()}

    return rename


def public_names(state: Mapping[str, Tensor], parts: tuple[tuple[str, str], ...] = ()) -> dict[str, Tensor]:
    """The way back: our state dict under the names of public checkpoints.

    Args:
        state: by our names.
        parts: (our part of a name, the public one), replaced one after the other.
    """
    renamed: dict[str, Tensor] = {}
    for ours, tensor in state.items():
        name = ours
        for old, new in parts:
            name = name.replace(old, new)
        renamed[name] = tensor
    return renamed
