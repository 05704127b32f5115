"""The programs of a bundle, made from its source anew: what the bundle's own are compared with."""

from __future__ import annotations

from edgeformer.attention import APPROXIMATE_KERNELS, KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module
from edgeformer.checkpoints.source_index import SOURCE_ATTENTION
from edgeformer.models.program import FULL_WINDOW, TAIL_WINDOW, Program, ProgramOptions
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.errors import InputError


def source_programs(manifest: Manifest, checkpoint: Checkpoint) -> tuple[Program, ...]:
    """The programs that a bundle was made of, in torch, in fp32, with the same attention where it is approximate.

    Raises:
        InputError: the checkpoint gives other programs today.
    """
    attention = APPROXIMATE_KERNELS.get(manifest.attention, KERNELS[SOURCE_ATTENTION])
    module, _ = load_module(checkpoint, attention)
    programs = checkpoint.family.programs(module, checkpoint.config, _options(manifest))
    if {program.name: program.inputs for program in programs} != {
        program.name: program.inputs for program in manifest.programs
    }:
        raise InputError(f"{checkpoint.source.id} no longer gives the programs of {manifest.name}: convert it again")
    return programs


def _options(manifest: Manifest) -> ProgramOptions:
    head = manifest.postprocessing
    if isinstance(head, Transcription):
        return ProgramOptions(
            audio_positions=tuple(bucket.positions for bucket in head.buckets),
            window=TAIL_WINDOW if any(bucket.tail for bucket in head.buckets) else FULL_WINDOW,
            prefill_tokens=head.prefill_tokens,
            decoder_state=head.state,
        )
    # Without a meaning for images.
    return ProgramOptions(seq_lens=tuple(program.inputs[0].shape[1] for program in manifest.programs))
