"""`verify --layers`: compares what each block of the source model gives with what the bundle's model file computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor as TorchTensor
from torch import nn

from edgeformer.checkpoints.source_index import TorchEngine, open_source, source_programs
from edgeformer.convert.target import PRECISIONS
from edgeformer.doctor.examiner import Array, examiner_for
from edgeformer.models.family import Program
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.vectors import Case, Tolerances, read_vectors
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.verify.verify import LayerStage, Verification

MEASURE = "Of a layer, |Δ| is the L2 norm of the difference as a fraction of the reference's norm."
HIDDEN = "This target's delegate hides what it computes on the way, so no layers are compared."


def add_layers(bundle: Bundle, verification: Verification, source: str | None = None) -> Verification:
    """A verification with a stage for each block of the source model, in front of the programs' stages.

    A layer's distance from the reference may be what an output's largest difference may be, as a fraction: the
    bundle's `tolerances.output`, or but for speech the precision's own, as outputs have a wider backstop. Audio
    conversions of the built-in models stay below 2e-6 at fp32, 2e-3 at fp16, 5e-2 at int8 and 2.3e-1 at 4 bits, where
    1e-4, 1e-2, 1.5e-1 and 3e-1 are allowed.

    Args:
        bundle: an open bundle.
        verification: of it.
        source: the checkpoint that it was made from; None: where `source_index.find` finds it.

    Raises:
        InputError: the checkpoint is not known here, or not the bundle's.
        EngineError: the target's tools are not installed.
    """
    examiner = examiner_for(bundle.manifest.target)
    checkpoint = open_source(bundle.manifest, source)
    view = examiner.read(bundle)
    cases, tolerances = read_vectors(bundle)
    runs = record_runs(bundle, cases, source_programs(bundle.manifest, checkpoint), checkpoint.family.blocks)
    values: list[Array] = []
    sizes = {block.size for run in runs for block in run.blocks.values()}
    engine = examiner.tapped(bundle, view, lambda _program, _label, value: values.append(value), sizes)
    if engine is None:
        return verification.with_layers((), HIDDEN)
    try:
        stages = _compare(engine, runs, values, _limit(bundle.manifest, tolerances))
    except EngineError as error:
        return verification.with_layers((), f"The layers cannot be compared: {error}.")
    finally:
        engine.close()
    return verification.with_layers(stages, MEASURE)


def _limit(manifest: Manifest, tolerances: Tolerances) -> float:
    """The largest distance of a layer that is right."""
    if TASKS[manifest.task].layers_as_outputs:
        return tolerances.output
    return min(tolerances.output, PRECISIONS[manifest.precision].output_tolerance)


def _compare(engine: Engine, runs: Sequence[BlockRun], values: list[Array], tolerance: float) -> tuple[LayerStage, ...]:
    """Each block at its worst over all runs."""
    found: dict[str, list[Match | None]] = {}
    for run in runs:
        values.clear()
        engine.run(run.program, run.inputs)
        for name, match in match_blocks(run.blocks, values, tolerance).items():
            found.setdefault(name, []).append(match)
    return tuple(_stage(name, matches, tolerance) for name, matches in found.items())


def _stage(name: str, matches: Sequence[Match | None], tolerance: float) -> LayerStage:
    real = [match for match in matches if match is not None]
    if len(real) < len(matches):
        return LayerStage(f"layer {name}", None, None, tolerance, ok=False)
    worst = max(real, key=lambda match: match.distance)
    return LayerStage(
        name=f"layer {name}",
        max_abs=worst.max_abs,
        cosine=min(match.cosine for match in real),
        tolerance=tolerance,
        ok=worst.distance <= tolerance,
        distance=worst.distance,
    )


# Finds each block's output among all values that another implementation of the model computes on its way.


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The value that is closest to a block's output.

    Attributes:
        distance: the L2 norm of the difference, as a fraction of the norm of the block's output.
        max_abs: the largest absolute difference.
        cosine: of the two.
        place: the value's number among all.
    """

    distance: float
    max_abs: float
    cosine: float
    place: int


def match_blocks(blocks: Mapping[str, Tensor], values: Sequence[Tensor], tolerance: float) -> dict[str, Match | None]:
    """Match in order: a block's output is looked for behind that of the block before.

    Formats lay tensors out in their own ways, and converters change and fuse operators, so a value is the block's
    output if its numbers are, in whatever order of the axes. Only a match within the tolerance moves the search on.

    Args:
        blocks: the reference's outputs by name, in the order of execution.
        values: what the other implementation computes, in the order of execution.
        tolerance: the largest `distance` of a match that is one.

    Returns:
        The closest value for each block; None: there is none of its size, or none that is finite.
    """
    found: dict[str, Match | None] = {}
    begin = 0
    for name, reference in blocks.items():
        closest = _closest(reference, values, begin)
        found[name] = closest
        if closest is not None and closest.distance <= tolerance:
            begin = closest.place + 1
    return found


def _closest(reference: Tensor, values: Sequence[Tensor], begin: int) -> Match | None:
    layouts = list(_layouts(reference))
    norm = float(np.linalg.norm(layouts[0])) or 1.0
    best: Match | None = None
    for place in range(begin, len(values)):
        if values[place].size != reference.size:
            continue
        value = values[place].astype(np.float64).ravel()
        own = float(np.linalg.norm(value))
        # No order of the axes brings two tensors closer than their norms are.
        if not np.isfinite(own) or (best is not None and abs(own - norm) / norm >= best.distance):
            continue
        for layout in layouts:
            distance = float(np.linalg.norm(value - layout)) / norm
            if best is None or distance < best.distance:
                cosine = float(np.clip(value @ layout / (own * norm), -1, 1)) if own else 0.0
                best = Match(distance, float(np.abs(value - layout).max()), cosine, place)
    return best


def _layouts(reference: Tensor) -> Iterator[Floats]:
    """The numbers of a tensor in each order of its axes; axes of size 1 change nothing."""
    squeezed = reference.astype(np.float64).squeeze()
    for order in itertools.permutations(range(squeezed.ndim)):
        yield squeezed.transpose(order).ravel()


# Runs the source model on recorded inputs and keeps what each of its blocks gives.


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
    inputs: dict[str, Tensor]
    blocks: dict[str, Tensor]


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

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Engine.run`; the run is added to `runs`."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: TorchTensor | tuple[TorchTensor, ...]) -> None:
                value = output[0] if isinstance(output, tuple) else output
                found[part + name] = value.detach().numpy().copy()

            return hook

        part, module = self.programs[program].part, self.programs[program].module
        hooks = [
            block.register_forward_hook(keep(name)) for name, block in module.named_modules() if self._is_block(name)
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
