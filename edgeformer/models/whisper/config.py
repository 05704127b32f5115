"""The configuration of Whisper, read from a public config.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeformer.models import config as fields
from edgeformer.models.config import LayerWidths, read_layer_widths
from edgeformer_runtime.errors import InputError

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
    """The fields of a public WhisperConfig that shape the computation, and the heads that align tokens with sound.

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
            raise InputError(f"config.json: alignment_heads must be (layer, head) of the decoder, found {list(heads)}")
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
