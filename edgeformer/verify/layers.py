"""`verify --layers`: compares what each block of the source model gives with what the bundle's model file computes."""

from __future__ import annotations

from collections.abc import Sequence

from edgeformer.checkpoints.source_index import open_source
from edgeformer.convert.reference import source_programs
from edgeformer.convert.target import PRECISIONS
from edgeformer.doctor.examiner import examiner_for
from edgeformer.doctor.model_view import Array
from edgeformer.verify.match import Match, match_blocks
from edgeformer.verify.record import BlockRun, record_runs
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.vectors import Tolerances, read_vectors
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.verify.verify import LayerStage, Verification

MEASURE = "Of a layer, |Δ| is the L2 norm of the difference as a fraction of the reference's norm."
HIDDEN = "This target's delegate hides what it computes on the way, so no layers are compared."


def add_layers(bundle: Bundle, verification: Verification, source: str | None = None) -> Verification:
    """A verification with a stage for each block of the source model, in front of the programs' stages.

    A layer's distance from the reference may be what an output's largest difference may be, as a fraction: the
    bundle's `tolerances.output`, or but for speech the precision's own, as outputs have a wider backstop. Sound
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
        stages = _compare(bundle, engine, runs, values, _limit(bundle.manifest, tolerances))
    except EngineError as error:
        return verification.with_layers((), f"The layers cannot be compared: {error}.")
    finally:
        engine.close()
    return verification.with_layers(stages, MEASURE)


def _limit(manifest: Manifest, tolerances: Tolerances) -> float:
    """The largest distance of a layer that is right."""
    if isinstance(manifest.postprocessing, Transcription):
        return tolerances.output
    return min(tolerances.output, PRECISIONS[manifest.precision].output_tolerance)


def _compare(
    bundle: Bundle, engine: Engine, runs: Sequence[BlockRun], values: list[Array], tolerance: float
) -> tuple[LayerStage, ...]:
    """Each block at its worst over all runs."""
    found: dict[str, list[Match | None]] = {}
    for run in runs:
        values.clear()
        engine.run(run.program, run.inputs)
        prefix = _prefix(bundle, run.program)
        for name, match in match_blocks(run.blocks, values, tolerance).items():
            found.setdefault(prefix + name, []).append(match)
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


def _prefix(bundle: Bundle, program: str) -> str:
    """Of speech, the half of the model that a program is: the encoder's blocks have its name already."""
    head = bundle.manifest.postprocessing
    if not isinstance(head, Transcription) or program in {bucket.encode for bucket in head.buckets}:
        return ""
    return "decoder."
