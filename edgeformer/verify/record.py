"""Runs the source model on recorded inputs and keeps what each of its blocks gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from edgeformer.convert.reference import TorchEngine
from edgeformer.models.program import Program
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Transcription, bucket_of
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.engines.base import Tensor as Array
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.verify.speech_replay import read_wav, steps

CASES_PER_PROGRAM = 2
"""A corrupted weight shows in nearly every input; more of them take as much time again."""


@dataclass(frozen=True)
class BlockRun:
    """One run of a program.

    Attributes:
        program: its name.
        inputs: what it was given, by name.
        blocks: the output of each block by its name in the module, in the order of execution.
    """

    program: str
    inputs: dict[str, Array]
    blocks: dict[str, Array]


def record_runs(
    bundle: Bundle, cases: Sequence[Case], programs: tuple[Program, ...], blocks: tuple[str, ...]
) -> list[BlockRun]:
    """Run recorded cases through the source model.

    Of speech, whose programs for all lengths of sound have the same weights, the shortest sound is heard: it is
    encoded, and its prompt is fed.

    Args:
        bundle: where the cases come from.
        cases: the recorded ones.
        programs: the bundle's, in torch.
        blocks: `Family.blocks`.
    """
    engine = _Recorder(programs, blocks)
    head = bundle.manifest.postprocessing
    if isinstance(head, Transcription):
        case = next(case for case in cases if case.program == head.buckets[0].encode)
        transcriber = Transcriber(bundle, engine)
        bucket = bucket_of(head, case.program)
        mel = transcriber.mel(read_wav(transcriber, case.raw), bucket)
        steps(transcriber.decoder(bucket), mel, case.expected["prompt"], lambda _: None)
        return engine.runs
    for program in programs:
        for case in [each for each in cases if each.program == program.name][:CASES_PER_PROGRAM]:
            engine.run(case.program, case.inputs)
    return engine.runs


class _Recorder(TorchEngine):
    """The source model as an engine that keeps its blocks' outputs."""

    def __init__(self, programs: tuple[Program, ...], blocks: tuple[str, ...]) -> None:
        super().__init__(programs)
        self._blocks = blocks
        self.runs: list[BlockRun] = []

    def run(self, program: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `Engine.run`; the run is added to `runs`."""
        found: dict[str, Array] = {}

        def keep(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
                value = output[0] if isinstance(output, tuple) else output
                found[name] = value.detach().numpy().copy()

            return hook

        module = self.programs[program].module
        hooks = [
            part.register_forward_hook(keep(name)) for name, part in module.named_modules() if self._is_block(name)
        ]
        try:
            outputs = super().run(program, inputs)
        finally:
            for each in hooks:
                each.remove()
        self.runs.append(BlockRun(program, {name: array.copy() for name, array in inputs.items()}, found))
        return outputs

    def _is_block(self, name: str) -> bool:
        parts = name.split(".")
        return any(
            len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
            for wanted in (pattern.split(".") for pattern in self._blocks)
        )
