"""Whisper (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"), distilled ones too.

Module and parameter names are those of public checkpoints without their prefix `model.`. Key: B batch, T positions of
the encoder (20 ms of audio each), S positions that are attended to, N tokens, H heads, D head dim, C channels (H*D),
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention import AttentionKernel
from edgeformer.attention.kernels import MASK_VALUE
from edgeformer.models import config as fields
from edgeformer.models.config import LayerWidths, read_layer_widths
from edgeformer.models.text import attention_heads, merge_heads
from edgeformer.models.units import AttentionModule, StackedLayer, UnitGroup, head_group, neuron_group
from edgeformer_runtime.bundle.specs import FRAMES_PER_POSITION
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

# The configuration, read from a public config.json.

_SIZES = (
    "vocab_size",
    "num_mel_bins",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_source_positions",
    "max_target_positions",
)

Head = tuple[int, int]
"""A layer of the decoder and one of its heads, both counted from 0."""


@dataclass(frozen=True)
class WhisperConfig:
    """The fields of a public WhisperConfig that shape the computation, and the heads that align tokens with audio.

    Attributes:
        max_source_positions: of the encoder, for the whole window.
        max_target_positions: tokens that the decoder can take.
        alignment_heads: rising. Empty in the constructor: all heads of the upper half of the decoder's layers, as
            Whisper itself does where nobody has measured which heads align (Radford et al. 2022, in its code's timing).
        encoder_layer_widths, decoder_layer_widths: an entry per layer. Empty in the constructor: every layer is whole.
            The decoder's layers have all their heads: its caches have one shape for all of them.
    """

    vocab_size: int = 51865
    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    decoder_layers: int = 4
    encoder_attention_heads: int = 6
    decoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    max_target_positions: int = 448
    alignment_heads: tuple[Head, ...] = ()
    encoder_layer_widths: tuple[LayerWidths, ...] = ()
    decoder_layer_widths: tuple[LayerWidths, ...] = ()

    def __post_init__(self) -> None:
        fields.check_heads(self.d_model, self.encoder_attention_heads, "d_model")
        fields.check_heads(self.d_model, self.decoder_attention_heads, "d_model")
        heads = tuple(sorted(set(self.alignment_heads))) or self._upper_half()
        if not all(self.has_head(head) for head in heads):
            raise InputError(
                f"config.json: alignment_heads must be (layer, head) of the decoder, found {shorten(heads)}"
            )
        object.__setattr__(self, "alignment_heads", heads)
        for half in ("encoder", "decoder"):
            if not getattr(self, f"{half}_layer_widths"):
                whole = LayerWidths(getattr(self, f"{half}_attention_heads"), (getattr(self, f"{half}_ffn_dim"),))
                object.__setattr__(self, f"{half}_layer_widths", (whole,) * getattr(self, f"{half}_layers"))
        if any(widths.heads != self.decoder_attention_heads for widths in self.decoder_layer_widths):
            raise InputError(
                "config.json: decoder_layer_widths must state all heads: those of the decoder are not pruned"
            )

    @property
    def head_dim(self) -> int:
        """D of the decoder."""
        return self.d_model // self.decoder_attention_heads

    def has_head(self, head: Head) -> bool:
        """Whether the decoder has this head."""
        return 0 <= head[0] < self.decoder_layers and 0 <= head[1] < self.decoder_attention_heads

    def _upper_half(self) -> tuple[Head, ...]:
        layers = range(self.decoder_layers // 2, self.decoder_layers)
        return tuple((layer, head) for layer in layers for head in range(self.decoder_attention_heads))


def parse_config(raw: Mapping[str, Any]) -> WhisperConfig:
    """A public Whisper config.json to WhisperConfig; InputError names the field that cannot be honoured."""
    default = WhisperConfig()
    if any(str(name).endswith("ForAudioClassification") for name in raw.get("architectures") or ()):
        raise InputError("config.json: a WhisperForAudioClassification has no decoder: only those that write are done")
    fields.read_choice(raw, "activation_function", "gelu", ("gelu",))
    if fields.read_bool(raw, "scale_embedding", False):
        raise InputError(
            "config.json: scale_embedding must be false, found true: no public Whisper scales its embeddings"
        )
    if raw.get("quantization_config"):
        raise InputError("config.json: quantization_config must be absent: save the checkpoint without it")
    sizes: dict[str, Any] = {key: fields.read_int(raw, key, getattr(default, key)) for key in _SIZES}
    config = WhisperConfig(**sizes)
    return replace(
        config,
        encoder_layer_widths=read_layer_widths(raw, "encoder_layer_widths", config.encoder_layer_widths),
        decoder_layer_widths=read_layer_widths(raw, "decoder_layer_widths", config.decoder_layer_widths),
    )


def with_alignment_heads(config: WhisperConfig, stated: Iterable[Head]) -> tuple[WhisperConfig, tuple[str, ...]]:
    """The config with the alignment heads that a checkpoint states, and notes on those that it does not have.

    A distilled model often keeps the list of its teacher, whose decoder is deeper. Where none is left, the config's
    default holds.
    """
    stated = tuple(dict.fromkeys(stated))
    kept = tuple(head for head in stated if config.has_head(head))
    notes: tuple[str, ...] = ()
    if len(kept) < len(stated):
        notes = (
            f"{len(stated) - len(kept)} of {len(stated)} alignment heads are beyond the decoder's "
            f"{config.decoder_layers} layers of {config.decoder_attention_heads} heads and were dropped"
            + ("" if kept else "; all heads of its upper half of layers take their place"),
        )
    return replace(config, alignment_heads=kept), notes


# The modules.


class Attention(AttentionModule):
    """Multi-head attention with its four projections; the keys' has no bias."""

    def __init__(self, size: int, num_heads: int, head_dim: int, kernel: AttentionKernel) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.q_proj = nn.Linear(size, width)
        self.k_proj = nn.Linear(size, width, bias=False)
        self.v_proj = nn.Linear(size, width)
        self.out_proj = nn.Linear(width, size)
        self.num_heads = num_heads
        self.scale = head_dim**-0.5
        self.attention = kernel

    def project(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of context (B, S, C)."""
        keys = attention_heads(self.k_proj(context), self.num_heads)
        return keys, attention_heads(self.v_proj(context), self.num_heads)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """x (B, T, C) attends to keys and values (B, H, S, D) under bias (B, 1, T or 1, S) or None, to (B, T, C)."""
        queries = attention_heads(self.q_proj(x), self.num_heads)
        out: Tensor = self.out_proj(merge_heads(self.attention(queries, keys, values, bias, self.scale)))
        return out


class FeedForward(StackedLayer):
    """What the layers of both halves share: the feed-forward network, under the names of public checkpoints."""

    self_attn: Attention

    def __init__(self, fc1: nn.Linear, fc2: nn.Linear, final_layer_norm: nn.LayerNorm) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2
        self.final_layer_norm = final_layer_norm

    @staticmethod
    def parts(size: int, middle: int) -> tuple[nn.Linear, nn.Linear, nn.LayerNorm]:
        """New ones for the constructor."""
        return nn.Linear(size, middle), nn.Linear(middle, size), nn.LayerNorm(size)

    def feed_forward(self, x: Tensor) -> Tensor:
        """(..., C) to the same: norm, widen, GELU, narrow, residual."""
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return out

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        return self.self_attn.num_heads

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its neurons alone: the decoder's caches have one shape for all layers."""
        yield neuron_group(self, name, 0, "fc1", "fc2")


class EncoderLayer(FeedForward):
    """A block of the encoder, normalised before each half."""

    def __init__(self, config: WhisperConfig, widths: LayerWidths, kernel: AttentionKernel) -> None:
        super().__init__(*self.parts(config.d_model, *widths.neurons))
        head_dim = config.d_model // config.encoder_attention_heads
        self.self_attn = Attention(config.d_model, widths.heads, head_dim, kernel)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, more: tuple[Tensor, Tensor] | None = None, bias: Tensor | None = None) -> Tensor:
        """x (B, T, C) to the same.

        Args:
            x: hidden states.
            more: keys and values (B, H, S - T, D) that are attended to besides its own.
            bias: (1, 1, 1, S), added to the attention's scores.
        """
        hidden = self.self_attn_layer_norm(x)
        keys, values = self.self_attn.project(hidden)
        if more is not None:
            keys, values = torch.cat((keys, more[0]), dim=2), torch.cat((values, more[1]), dim=2)
        return self.feed_forward(x + self.self_attn(hidden, keys, values, bias))

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """Its heads, and its neurons."""
        size = self.self_attn.out_proj.in_features // self.num_heads
        writers = [f"self_attn.{each}_proj" for each in "qkv"]
        yield head_group(name, self.num_heads, writers, size, "self_attn.out_proj")
        yield from super().unit_groups(name)


class Encoder(nn.Module):
    """A log-mel spectrogram to hidden states."""

    def __init__(self, config: WhisperConfig, kernel: AttentionKernel) -> None:
        super().__init__()
        size = config.d_model
        self.conv1 = nn.Conv1d(config.num_mel_bins, size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(size, size, kernel_size=3, stride=FRAMES_PER_POSITION, padding=1)
        self.embed_positions = nn.Embedding(config.max_source_positions, size)
        self.layers = nn.ModuleList(EncoderLayer(config, widths, kernel) for widths in config.encoder_layer_widths)
        self.layer_norm = nn.LayerNorm(size)

    @property
    def blocks(self) -> tuple[EncoderLayer, ...]:
        """The layers, under their type."""
        return cast(tuple[EncoderLayer, ...], tuple(self.layers))

    def stem(self, mel: Tensor) -> Tensor:
        """mel (B, n_mels, 2 T) with T up to max_source_positions, to (B, T, C) with positions added."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        return x + self.embed_positions.weight[: x.shape[1]]

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, n_mels, 2 T) to (B, T, C)."""
        x = self.stem(mel)
        for layer in self.blocks:
            x = layer(x)
        out: Tensor = self.layer_norm(x)
        return out


class DecoderLayer(FeedForward):
    """A block of the decoder, normalised before each third."""

    def __init__(self, config: WhisperConfig, widths: LayerWidths, kernel: AttentionKernel) -> None:
        super().__init__(*self.parts(config.d_model, *widths.neurons))
        self.self_attn = Attention(config.d_model, widths.heads, config.head_dim, kernel)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, widths.heads, config.head_dim, kernel)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x: Tensor, states: Tensor, causal: Tensor) -> Tensor:
        """x (B, N, C), states (B, S, C) of the encoder, causal (1, 1, N, N), to (B, N, C)."""
        hidden = self.self_attn_layer_norm(x)
        x = x + self.self_attn(hidden, *self.self_attn.project(hidden), causal)
        attended: Tensor = self.encoder_attn(self.encoder_attn_layer_norm(x), *self.encoder_attn.project(states), None)
        return self.feed_forward(x + attended)


class Decoder(nn.Module):
    """Tokens and the encoder's states to logits; the output layer is the table of the tokens' embeddings."""

    def __init__(self, config: WhisperConfig, kernel: AttentionKernel) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config, widths, kernel) for widths in config.decoder_layer_widths)
        self.layer_norm = nn.LayerNorm(config.d_model)

    @property
    def blocks(self) -> tuple[DecoderLayer, ...]:
        """The layers, under their type."""
        return cast(tuple[DecoderLayer, ...], tuple(self.layers))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens (..., N) and positions (N,), integers, to (..., N, C)."""
        out: Tensor = self.embed_tokens(tokens) + self.embed_positions(positions)
        return out

    def logits(self, x: Tensor) -> Tensor:
        """(..., C) to (..., V)."""
        return F.linear(self.layer_norm(x), self.embed_tokens.weight)

    def forward(self, tokens: Tensor, states: Tensor) -> Tensor:
        """tokens (B, N) integers, states (B, S, C), to logits (B, N, V) of what follows each token."""
        count = tokens.shape[1]
        x = self.embed(tokens, torch.arange(count, device=tokens.device))
        causal = causal_mask(count)[None, None].to(states.device)
        for layer in self.blocks:
            x = layer(x, states, causal)
        return self.logits(x)


class Whisper(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: WhisperConfig, kernel: AttentionKernel) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, kernel)
        self.decoder = Decoder(config, kernel)

    def forward(self, mel: Tensor, tokens: Tensor) -> Tensor:
        """mel (B, n_mels, 2 T) float32, tokens (B, N) integers, to logits (B, N, V) float32."""
        logits: Tensor = self.decoder(tokens, self.encoder(mel))
        return logits


def causal_mask(count: int) -> Tensor:
    """(N, N) float32: 0 where a token sees itself or an earlier one, MASK_VALUE where it would see a later one."""
    return torch.triu(torch.full((count, count), MASK_VALUE), diagonal=1)


# The silent tail: what stands in for the part of Whisper's window that has no audio.
#
# Whisper was trained on windows of 30 seconds, padded with silence. Cutting the window short makes it run away, and
# computing the padding costs time. But what the encoder makes of pure silence is a constant: so only the positions that
# hold audio are computed, and a few positions of silence, computed in advance, join what attention sees. Each stands
# for a run of n missing ones, which n equal keys with equal values would be in a softmax if log n were added to the
# score of one. Measured on tiny.en over 42 clips of 2 to 18 s: 30 word errors in 586 words, as with the whole window;
# without the logarithms 663.


SILENT_MEL = -0.6
"""What the spectrogram of silence is taken to be behind any audio: the mean of what padded clips have there."""

EXACT_POSITIONS = 32
"""Missing positions right behind the audio that stand for themselves: the encoder looks at its neighbours most."""

SPREAD_POSITIONS = 32
"""Runs that the rest of the missing positions is divided into, each represented by the one in its middle."""


def tail_positions(positions: int, window: int) -> tuple[tuple[int, int], ...]:
    """Which positions of silence stand in for `positions` to `window`, and how many each stands for.

    Returns:
        (position, count) in rising order. The counts add up to window - positions.
    """
    missing = window - positions
    if missing <= EXACT_POSITIONS + SPREAD_POSITIONS:
        return tuple((position, 1) for position in range(positions, window))
    first = positions + EXACT_POSITIONS
    edges = [first + round(run * (window - first) / SPREAD_POSITIONS) for run in range(SPREAD_POSITIONS + 1)]
    return (
        *((position, 1) for position in range(positions, first)),
        *(((start + end - 1) // 2, end - start) for start, end in pairwise(edges)),
    )


def tail_bias(positions: int, window: int) -> Tensor:
    """(S,) float32: what attention adds to the scores of T computed positions, 0, and of the tail, log count."""
    counts = [count for _, count in tail_positions(positions, window)]
    return torch.cat((torch.zeros(positions), torch.tensor(counts, dtype=torch.float32).log())).contiguous()


@dataclass(frozen=True)
class Silence:
    """What a model's encoder makes of a window of silence.

    Attributes:
        normed: for each encoder layer, (1, window, C): the normalised states that its self-attention projects.
        states: (1, window, C): the encoder's result.
    """

    normed: tuple[Tensor, ...]
    states: Tensor

    def select(self, positions: int) -> Silence:
        """The positions of the tail behind T computed ones."""
        index = torch.tensor([position for position, _ in tail_positions(positions, self.states.shape[1])])
        return Silence(tuple(normed[:, index] for normed in self.normed), self.states[:, index])


@torch.no_grad()
def silence_of(model: Whisper) -> Silence:
    """Run a window of silence through the encoder: once per model, at the price of one window of audio."""
    encoder, config = model.encoder, model.config
    frames = FRAMES_PER_POSITION * config.max_source_positions
    x = encoder.stem(torch.full((1, config.num_mel_bins, frames), SILENT_MEL))
    normed = []
    for layer in encoder.blocks:
        normed.append(layer.self_attn_layer_norm(x))
        x = layer(x)
    return Silence(tuple(normed), encoder.layer_norm(x))


@torch.no_grad()
def project(attention: Attention, states: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, S, D) of states (B, S, C), contiguous, as constants of a program have to be."""
    keys, values = attention.project(states)
    return keys.contiguous(), values.contiguous()
