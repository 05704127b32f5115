"""Architectures without a family of their own: transformers' own modules, called so that every target can lower them.

Attention runs in our kernels through transformers' `AttentionInterface`; masks and positions come from outside, as
finite floats and constants. When the weights are there, `fit` compares the module with transformers' own computation,
with and without padding, and refuses it where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeformer.attention import AttentionKernel
from edgeformer.attention.kernels import MASK_VALUE, additive_mask
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.text import TextEncoder, TextModel, text_programs
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.speech import RecordingPreprocessing
from edgeformer_runtime.tasks.vision import ImagePreprocessing

IMPLEMENTATION = "edgeformer"
"""What transformers knows our attention by."""
BASE, INSIDE = "adapted", "public"
PREFIX = f"{BASE}.{INSIDE}."
"""Before the names of public checkpoints."""

_WHOLE, _PADDING = 12, 4
"""Tokens of the sample that `fit` compares, and how many of them it hides."""
SPANS = "spans"
"""The output of question answering: the logits of starts and of ends."""
TOLERANCE = 1e-4
"""How far outputs may be from transformers' own, relative to the largest."""
_running: ContextVar[Any] = ContextVar("the module whose attention is asked for")


# What transformers calls in place of its own attention and masks.


def attend(
    module: nn.Module,  # noqa: ARG001
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    position_bias: Tensor | None = None,
    **others: Any,  # noqa: ARG001
) -> tuple[Tensor, None]:
    """Attention of a module of transformers in the kernel of the model that runs: its `AttentionInterface`.

    Args:
        module: which layer asks.
        query: (B, H, T, D).
        key: (B, H or fewer, S, D).
        value: as `key`.
        attention_mask: what `hide` gave, or the module's own: (B, 1 or H, T or 1, S), floats to add or whether a
            position is seen.
        scaling: factor of q·k; None: D ** -0.5.
        dropout: of training.
        position_bias: (1, H, T, S), added to the scores.
        others: see `fit`, which finds out whether they matter.

    Returns:
        (B, T, H, D), and no weights.
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    bias = _running.get().padding if attention_mask is None else attention_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = (1.0 - bias.float()) * _running.get().hidden_value
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _running.get().attention(query, key, value, bias, scale)
    return out.transpose(1, 2).contiguous(), None


def hide(
    batch_size: int,  # noqa: ARG001
    q_length: int,
    kv_length: int,
    mask_function: Any = None,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> Tensor | None:
    """The mask of a layer of transformers, its `AttentionMaskInterface`: padding's bias, and a window's as a constant.

    Args:
        batch_size: B.
        q_length: T.
        kv_length: S.
        mask_function: which queries see which keys.
        attention_mask: (B, S); the running model may have the bias that was made of it.
        options: those of transformers' own masks.

    Returns:
        (B or 1, 1, T or 1, S) float32 to add to scores, or None.
    """
    from transformers.masking_utils import bidirectional_mask_function, sdpa_mask

    running = _running.get()
    bias: Tensor | None = None
    if attention_mask is not None:
        bias = running.bias
        if bias is None:  # the module has made the mask itself, as of an image's padding
            bias = ((1.0 - attention_mask.float()) * running.hidden_value)[:, None, None]
            if running.whole_masks:
                bias = bias.expand(-1, 1, q_length, -1)
    if bias is not None and bias.shape[-1] < kv_length:  # it fills texts up to the size of its windows
        bias = functional.pad(bias, (0, kv_length - bias.shape[-1]), value=running.hidden_value)
    if mask_function is bidirectional_mask_function:
        return bias

    def window() -> Tensor:
        vmap = {key: options[key] for key in ("use_vmap", "q_offset", "kv_offset") if key in options}
        seen = sdpa_mask(
            batch_size=1, q_length=q_length, kv_length=kv_length, mask_function=mask_function,
            allow_is_causal_skip=False, **vmap,
        )  # fmt: skip
        unseen: Tensor = 1.0 - seen.float()
        return unseen

    hidden: Tensor = running.constant(q_length, kv_length, window) * running.hidden_value
    return hidden if bias is None else bias + hidden


class Network(nn.Module):
    """A module of transformers whose attention is ours.

    `bias` is what padding adds to the scores of the forward that runs, where the public module is given a mask;
    `padding` the same where it is given none; `mask_value` what a hidden position adds, None: the usual. `whole_masks`:
    those that the module makes have a row for each query, as attention of its own may need.
    """

    bias: Tensor | None = None
    padding: Tensor | None = None
    whole_masks = False
    mask_value: float | None = None

    def __init__(self, public: nn.Module, attention: AttentionKernel) -> None:
        from transformers import AttentionInterface, AttentionMaskInterface

        nn.Module.__init__(self)
        AttentionInterface.register(IMPLEMENTATION, attend)
        AttentionMaskInterface.register(IMPLEMENTATION, hide)
        self.public = public
        self.attention = attention
        self._asked = 0
        self.use(IMPLEMENTATION)
        self._built = _makeup(public)

    def use(self, implementation: str) -> None:
        """Let the public module's layers take attention and masks of that name."""
        for part in self.public.modules():
            config: Any = getattr(part, "config", None)
            if hasattr(config, "_attn_implementation_internal"):
                # The public setter passes over modules that make their own attention and ask for masks.
                config._attn_implementation_internal = implementation

    @property
    def hidden_value(self) -> float:
        """What a position that is not seen adds to its scores."""
        return MASK_VALUE if self.mask_value is None else self.mask_value

    def constant(self, q_length: int, kv_length: int, make: Callable[[], Tensor]) -> Tensor:
        """The next of the masks that this forward asks for: made the first time, a buffer from then on."""
        name = f"unseen_{q_length}_{kv_length}_{self._asked}"
        self._asked += 1
        if name not in self._buffers:
            self.register_buffer(name, make().contiguous(), persistent=False)
        return self.get_buffer(name)

    def call(self, method: str = "forward", /, **inputs: Any) -> Any:
        """The public module's answer, or that of another of its methods or parts."""
        self._asked = 0
        token = _running.set(self)
        answering = self.public if method == "forward" else getattr(self.public, method)
        try:
            return answering(**inputs, return_dict=True)
        finally:
            _running.reset(token)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Within the context, attention and masks are transformers' own, and the public module is as it was built.

        BigBird takes another attention for good with the first text that is short.
        """
        now = _makeup(self.public)
        _restore(self._built)
        self.use("eager")
        try:
            yield
        finally:
            self.use(IMPLEMENTATION)
            _restore(now)


def _makeup(public: nn.Module) -> list[tuple[nn.Module, dict[str, Any]]]:
    """Each part of a module, with its settings and its own parts."""

    def settings(part: nn.Module) -> dict[str, Any]:
        plain = {name: each for name, each in vars(part).items() if isinstance(each, str | int | float)}
        return plain | {"training": False, "_modules": {**part._modules}}

    return [(part, settings(part)) for part in public.modules()]


def _restore(makeup: list[tuple[nn.Module, dict[str, Any]]]) -> None:
    for part, settings in makeup:
        vars(part).update(settings, _modules={**settings["_modules"]})


class AdaptedEncoder(Network, TextEncoder):
    """A text model of transformers, with its head where there is one.

    `position_ids` (1, S) are given to it, as `fit` finds them; None: it makes its own. `token_types` (1, S) are for a
    model that has one type and takes it; None: it has several, which are an input, or none.
    """

    position_ids: Tensor | None
    token_types: Tensor | None
    first_token_only = False  # all are computed, whatever is asked for

    def __init__(self, public: nn.Module, output: str, attention: AttentionKernel, one_type_of: int | None) -> None:
        """`one_type_of`: the longest S of a model that takes the one token type that it has."""
        super().__init__(public, attention)
        self.output = output
        self.register_buffer("position_ids", None, persistent=False)
        zeros = None if one_type_of is None else torch.zeros((1, one_type_of), dtype=torch.int32)
        self.register_buffer("token_types", zeros, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """(B, S) int32 each to (B, S, C), (B, S, L) or (B, L) float32: hidden states or logits."""
        if self.token_types is not None:
            token_type_ids = self.token_types[:, : input_ids.shape[1]]
        named = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.position_ids is not None:
            positions = self.position_ids[:, : input_ids.shape[1]]
            named["position_ids"] = positions if len(input_ids) == 1 else positions.expand(len(input_ids), -1)
        self.bias = additive_mask(attention_mask, self.mask_value)
        try:
            return self._taken(self.call(input_ids=input_ids, attention_mask=attention_mask, **named))
        finally:
            self.bias = None

    @property
    def named(self) -> str:
        """The public module's class, for messages."""
        return next((type(part).__name__ for part in self.public.modules() if hasattr(part, "config")), "model")

    @property
    def encoder(self) -> Any:  # type: ignore[override]
        """Itself: there is no stack of layers to ask for less."""
        return self

    def own(self, *inputs: Tensor) -> Tensor:
        """The same as transformers computes it, with its own attention, masks and positions."""
        names = ("input_ids", "attention_mask", "token_type_ids")
        with self.eager():
            return self._taken(self.call(**{name: each.long() for name, each in zip(names, inputs, strict=False)}))

    def _taken(self, answer: Any) -> Tensor:
        if self.output == SPANS:
            return torch.stack((answer["start_logits"], answer["end_logits"]), dim=-1)
        found: Tensor = answer[self.output]
        return found


class AdaptedHead(TextModel):
    """A text model of transformers with its own head."""

    output_name = "logits"

    def __init__(self, encoder: AdaptedEncoder, width: int, per_token: bool) -> None:
        super().__init__(BASE, encoder, width)
        self.per_token = per_token

    def output_shape(self, seq_len: int) -> tuple[int, ...]:
        """(1, S, L) or (1, L)."""
        return (1, seq_len, self.output_dim) if self.per_token else (1, self.output_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> tuple[Tensor]:
        """input_ids, attention_mask, token_type_ids (B, S) int32 to (logits (B, L) or (B, S, L) float32,)."""
        return (self.encoder(input_ids, attention_mask, token_type_ids),)


# Programs, and whether they are the public ones.


@dataclass(frozen=True)
class AdaptedConfig:
    """What is common to all architectures, beside transformers' own config.

    Attributes:
        public: transformers' config.
        input_names: the programs' inputs, in order.
        vocab_size, type_vocab_size, hidden_size, max_position_embeddings: of texts, as `TextConfig` has them.
        pad_token_id: of texts.
        first_position: of texts, the id of the first token's position.
        one_type_of: of texts, `max_position_embeddings` where the model takes the one token type that it has.
        preprocessing: of images and recordings.
        takes_bgr: of images, whose channels the module takes in this order.
    """

    public: Any
    input_names: tuple[str, ...]
    vocab_size: int = 0
    type_vocab_size: int = 0
    hidden_size: int = 0
    max_position_embeddings: int = 0
    pad_token_id: int = 0
    first_position: int = 0
    one_type_of: int | None = None
    preprocessing: ImagePreprocessing | RecordingPreprocessing | None = None
    takes_bgr: bool = False


def programs(module: nn.Module, config: AdaptedConfig, options: ProgramOptions) -> tuple[Program, ...]:
    """A program for each length of a text.

    Raises:
        InputError: an answer depends on the padding up to one of the lengths.
    """
    made = text_programs(module, config, options)
    assert isinstance(module, TextModel) and isinstance(module.encoder, AdaptedEncoder)
    _check_length(module.encoder, config, made[-1].inputs[0].shape[1])
    # Makes the constants of each length, too, which an export cannot.
    _check_padding(module.encoder, config, [program.inputs[0].shape[1] for program in made])
    return made


@torch.no_grad()
def fit(module: nn.Module, config: AdaptedConfig) -> None:
    """Compare a text module that has its weights with transformers' own computation, and settle its positions.

    Raises:
        InputError: they differ, or a text's answer depends on the padding behind it.
    """
    assert isinstance(module, TextModel) and isinstance(module.encoder, AdaptedEncoder)
    encoder = module.encoder
    length = min(_WHOLE, config.max_position_embeddings)
    inputs = _sample(config, length)
    with told(encoder.named):
        whole = encoder.own(*inputs)
    end = config.first_position + config.max_position_embeddings
    positions = torch.arange(config.first_position, end, dtype=torch.int32)[None]
    check = partial(compare, encoder.named, whole, lambda: encoder(*inputs))
    _settle(encoder, (positions, positions.long(), None), check)
    _check_padding(encoder, config, [length])


@torch.no_grad()
def _check_length(encoder: AdaptedEncoder, config: AdaptedConfig, length: int) -> None:
    """Compare as many tokens as the longest program takes: windows and the like begin behind a few."""
    inputs = _sample(config, length)
    with told(encoder.named):
        expected = encoder.own(*inputs)
    where = f"on texts of {length} tokens, so choose a smaller length"
    compare(encoder.named, expected, lambda: encoder(*inputs), where)


def _sample(config: AdaptedConfig, length: int) -> list[Tensor]:
    """A random text's inputs, (1, S) int32 each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.pad_token_id + 1, config.vocab_size, (1, length), generator=generator, dtype=torch.int32)
    return [ids % config.vocab_size, torch.ones_like(ids), torch.zeros_like(ids)][: len(config.input_names)]


@torch.no_grad()
def _check_padding(encoder: AdaptedEncoder, config: AdaptedConfig, lengths: Sequence[int]) -> None:
    """Compare a text that is filled up to each length with what transformers computes of it alone.

    Some attend otherwise from some length on, so one length says nothing of another.
    """
    for length, part in ((each, part) for each in lengths for part in (min(_WHOLE, each) - _PADDING, each // 2 + 1)):
        part = max(2, part)
        padded = _sample(config, length)
        with told(encoder.named):
            alone = encoder.own(*(each[:, :part] for each in padded))
        padded[0][:, part:] = config.pad_token_id
        padded[1][:, part:] = 0

        def with_padding(inputs: Sequence[Tensor] = padded, part: int = part, dim: int = alone.dim()) -> Tensor:
            found: Tensor = encoder(*inputs)
            return found[:, :part] if found.dim() == dim == 3 else found

        compare(encoder.named, alone, with_padding, "with padding behind a text, which a bundle's fixed lengths need")


def _settle(encoder: AdaptedEncoder, choices: Sequence[Tensor | None], check: Callable[[], None]) -> None:
    """Give an encoder the first position ids that pass; None: it has relative ones, or makes its own."""
    for positions in choices:
        encoder.position_ids = positions
        try:
            check()
        except InputError:
            if positions is None:
                raise
        else:
            return


def compare(name: str, expected: Tensor, compute: Callable[[], Tensor], where: str = "through our attention") -> None:
    """Refuse what is not within `TOLERANCE` of what transformers computes, or stumbles; `where` says of what."""
    with told(name):
        found = compute()
    if found.shape == expected.shape:
        apart = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
        if apart <= TOLERANCE:
            return
        raise InputError(f"a {name} of transformers answers otherwise {where}: {apart:.1g} of the largest output")
    raise InputError(f"a {name} of transformers gives {tuple(found.shape)} {where}, not {tuple(expected.shape)}")


@contextmanager
def told(name: str) -> Iterator[None]:
    """Within the context, one line for what a module of transformers stumbles over."""
    try:
        yield
    except InputError as error:
        raise InputError(f"a {name} of transformers cannot be adapted: {error}") from None
    except Exception as error:  # of any module
        why = shorten(" ".join(str(error).split()), 160)
        raise InputError(f"a {name} of transformers cannot be adapted: {type(error).__name__} {why}") from None
