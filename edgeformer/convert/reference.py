"""The source model as an engine: the reference that vectors are recorded from and that peers are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edgeformer.attention import APPROXIMATE_KERNELS, KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module
from edgeformer.checkpoints.source_index import SOURCE_ATTENTION
from edgeformer.models.program import Program
from edgeformer.models.score_range import exact_masks
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.engines.program_decoder import StateOwners
from edgeformer_runtime.errors import InputError


class TorchEngine:
    """Runs programs eagerly in torch, in fp32, as the checkpoint has them."""

    name = "torch"
    not_covered: str | None = None

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = {program.name: program for program in programs}
        self._owners = StateOwners()
        self.executed_by = f"torch {torch.__version__.split('+')[0]}"

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program; see `Engine.run`."""
        spec = self.programs[program]
        # Exact masks: the reference must not hide a leak of padding by having it too.
        with torch.inference_mode(), exact_masks(spec.module):
            outputs = spec.module(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
        return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, outputs, strict=True)}

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder over a bucket's programs; see `Engine.open_decoder`."""
        return decoder_over(self.run, bucket, spec, self._owners)

    def close(self) -> None:
        """Nothing to release: the programs belong to the caller."""


# The programs of a bundle, made from its source anew: what the bundle's own are compared with.


def source_programs(manifest: Manifest, checkpoint: Checkpoint) -> tuple[Program, ...]:
    """The programs that a bundle was made of, in torch, in fp32, with the same attention where it is approximate.

    Raises:
        InputError: the checkpoint gives other programs today.
    """
    attention = APPROXIMATE_KERNELS.get(manifest.attention, KERNELS[SOURCE_ATTENTION])
    module, _ = load_module(checkpoint, attention)
    programs = checkpoint.programs(module, TASKS[manifest.task].program_options(manifest))
    if {program.name: program.inputs for program in programs} != {
        program.name: program.inputs for program in manifest.programs
    }:
        raise InputError(f"{checkpoint.source.id} no longer gives the programs of {manifest.name}: convert it again")
    return programs
