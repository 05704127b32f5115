"""Whisper as a family: its tasks, the names in its public checkpoints, its programs, and the range of its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.attention.kernels import MASK_VALUE, ScoreRange
from edgeformer.models.config import read_object, write_json
from edgeformer.models.family import Family, without_prefix
from edgeformer.models.score_range import score_range
from edgeformer.models.whisper.generation import GENERATION_FILE, read_speech
from edgeformer.models.whisper.model import Whisper, WhisperConfig, parse_config, with_alignment_heads
from edgeformer.models.whisper.programs import whisper_programs
from edgeformer.tasks.speech import RECOGNITION
from edgeformer_runtime.bundle.specs import FRAMES_PER_POSITION
from edgeformer_runtime.errors import InputError

SPEECH_TASKS = (RECOGNITION.name,)

_PREFIX = "model."
_OUTPUT, _EMBEDDING = "proj_out.weight", "decoder.embed_tokens.weight"


def build(config: WhisperConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:  # noqa: ARG001
    """A Whisper in eval mode with untrained weights; it has no labels."""
    if task not in SPEECH_TASKS:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(SPEECH_TASKS)}")
    return Whisper(config, attention).eval()


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public names to ours. An output layer that repeats the table of embeddings is left to that table.

    Raises:
        InputError: the output layer is one of its own, or two public names mean the same.
    """
    renamed = without_prefix(state, _PREFIX)
    output, embedding = renamed.pop(_OUTPUT, None), renamed.get(_EMBEDDING)
    if output is not None and embedding is not None and not torch.equal(output, embedding):
        raise InputError(f"{_OUTPUT} differs from {_EMBEDDING}: expected a Whisper with tied embeddings")
    return renamed


def publish(state: Mapping[str, Tensor], config: WhisperConfig) -> dict[str, Tensor]:  # noqa: ARG001
    """Our names with the prefix; the output layer, tied to the embeddings, is not repeated."""
    return {_PREFIX + name: tensor for name, tensor in state.items()}


def _no_labels(raw: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG001
    """A Whisper answers with text."""
    return ()


def _with_layers(
    raw: Mapping[str, Any], config: WhisperConfig, left: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], WhisperConfig]:
    """The alignment heads are those of the decoder's layers that are left, by their new numbers."""
    encoder, decoder = list(left["encoder.layers"]), list(left["decoder.layers"])
    heads = tuple((decoder.index(layer), head) for layer, head in config.alignment_heads if layer in decoder)
    smaller = replace(config, decoder_layers=len(decoder), decoder_layer_widths=(), alignment_heads=heads)
    return {**raw, "encoder_layers": len(encoder), "decoder_layers": len(decoder)}, smaller


def _keep_extras(config: WhisperConfig, old: WhisperConfig) -> WhisperConfig:
    """The alignment heads, which generation_config.json states."""
    return with_alignment_heads(config, old.alignment_heads)[0]


def _write_extras(folder: Path, config: WhisperConfig) -> None:
    """Layers that were removed have changed the numbers of the alignment heads."""
    file = folder / GENERATION_FILE
    generation = read_object(file) if file.is_file() else {}
    write_json(file, {**generation, "alignment_heads": [list(head) for head in config.alignment_heads]})


FAMILY = Family(
    name="whisper",
    tasks=SPEECH_TASKS,
    parse_config=parse_config,
    build=build,
    rename=rename,
    publish=publish,
    unused=(),
    programs=whisper_programs,
    parse_labels=_no_labels,
    # The second program decodes: its module has no prefix.
    blocks=("encoder.conv1", "encoder.conv2", "encoder.layers.*", "encoder.layer_norm", "layers.*"),
    with_layers=_with_layers,
    sizes=MappingProxyType(
        {
            "whisper": (
                ("vocab_size", "d_model"),
                ("max_source_positions", "d_model"),
                ("max_target_positions", "d_model"),
                ("num_mel_bins", "d_model"),
                ("encoder_layers", "d_model", "d_model"),
                ("encoder_layers", "d_model", "encoder_ffn_dim"),
                ("decoder_layers", "d_model", "d_model"),
                ("decoder_layers", "d_model", "decoder_ffn_dim"),
            )
        }
    ),
    width_keys=MappingProxyType({"encoder.": "encoder_layer_widths", "decoder.": "decoder_layer_widths"}),
    read_extras=read_speech,
    keep_extras=_keep_extras,
    write_extras=_write_extras,
)

# How far the scores of the decoder's attention to its own tokens spread.

_AUDIO_POSITIONS, _AUDIO_TOKENS = 64, 48
"""Of a sample of audio, which is noise, and of what is decoded from it."""
_SAMPLES = 4


def sample_audio(module: Whisper) -> Mapping[str, Tensor]:
    """Noise as a spectrogram (B, n_mels, 2 T) float32, and random tokens (B, N)."""
    config = module.config
    positions = min(_AUDIO_POSITIONS, config.max_source_positions)
    tokens = min(_AUDIO_TOKENS, config.max_target_positions)
    generator = torch.Generator().manual_seed(0)
    shape = (_SAMPLES, config.num_mel_bins, FRAMES_PER_POSITION * positions)
    return {
        "mel": torch.rand(shape, generator=generator) * 2 - 1,
        "tokens": torch.randint(config.vocab_size, (_SAMPLES, tokens), generator=generator),
    }


def decoder_scores(module: nn.Module, checkpoint: Any) -> ScoreRange:  # noqa: ARG001
    """The range of a Whisper's decoder on `sample_audio`.

    Raises:
        InputError: the usual mask, which a bundle hides the unwritten slots of its cache with, is not safe for it.
    """
    assert isinstance(module, Whisper)
    found = score_range(module, sample_audio(module), (layer.self_attn for layer in module.decoder.blocks))
    found = replace(found, spread=max(found.spread, found.largest))  # an unwritten slot of the cache has the score 0
    if found.mask != MASK_VALUE:
        raise InputError(
            f"the decoder's attention scores are up to {found.spread:.0f} apart, and a bundle hides slots of its "
            f"cache with {MASK_VALUE:.0f}, which is not safe then: the checkpoint is damaged or its training diverged"
        )
    return found
