"""Runs the source model on recorded inputs and keeps what each of its blocks gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from edgeformer.convert.reference import TorchEngine
from edgeformer.models.program import Program
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.engines.base import Tensor as Array

CASES_PER_PROGRAM = 2
"""A corrupted weight shows in nearly every input; more of them take as much time again."""


@dataclass(frozen=True)
class BlockRun:
    """One run of a program.

    Attributes:
        program: its name.
        inputs: what it was given, by name.
        blocks: the output of each block by its name in the whole model, in the order of execution.
    """

    program: str
    inputs: dict[str, Array]
    blocks: dict[str, Array]


def record_runs(
    bundle: Bundle, cases: Sequence[Case], programs: tuple[Program, ...], blocks: tuple[str, ...]
) -> list[BlockRun]:
    """Run recorded cases through the source model.

    Of a decoder the prompt is fed.

    Args:
        bundle: where the cases come from.
        cases: the recorded ones.
        programs: the bundle's, in torch.
        blocks: `Family.blocks`.
    """
    engine = _Recorder(programs, blocks)
    TASKS[bundle.manifest.task].rerun(bundle, engine, cases, CASES_PER_PROGRAM, 0)
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
                found[part + name] = value.detach().numpy().copy()

            return hook

        part, module = self.programs[program].part, self.programs[program].module
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
