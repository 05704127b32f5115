"""Whisper as a family: its tasks, the names in its public checkpoints, its programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.families import Family
from edgeformer.models.public_names import unwrapped
from edgeformer.models.whisper import Whisper
from edgeformer.models.whisper_config import WhisperConfig, parse_config
from edgeformer.models.whisper_programs import whisper_programs
from edgeformer.tasks import SPEECH
from edgeformer_runtime.errors import InputError

SPEECH_TASKS = (SPEECH,)

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
    renamed = {unwrapped(name): tensor for name, tensor in state.items()}
    if len(renamed) < len(state):
        raise InputError(f"checkpoint holds tensors twice, with the prefix {_PREFIX} and without: remove one")
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
)
