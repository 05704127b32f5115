"""The gates after lowering: what must hold for a bundle to be delivered, and what is only worth a warning."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgeformer.convert.agreement import AccuracyChange, Agreement, Judged, Reference, agreement, recorded_references
from edgeformer.convert.target import Allowance, Lowered, Precision
from edgeformer.tasks.task import TASKS, Task
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import read_vectors
from edgeformer_runtime.engines import Engine, open_engine
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import row_inputs, row_outputs, rows_of
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.verify.verify import Verification

ONE_SIDED_95 = 1.645
WORTH_TELLING = 0.05
"""Of answers that changed near a boundary: a larger share is told."""
ENOUGH_LABELLED = 64
"""Labelled inputs that are judged by themselves; fewer come beside the built-in ones."""
FINER = {
    "int4": ("dynamic-int8", "fp16"),
    "mixed": ("dynamic-int8", "fp16"),
    "palette4": ("palette6", "fp16"),
    "static-int8": ("dynamic-int8", "fp16"),
    "dynamic-int8": ("fp16",),
    "weight-int8": ("fp16",),
    "palette6": ("fp16",),
}
"""What to try where a precision loses too much; fp32 always remains."""
# Two runs of one model differ by a few per cent on a busy machine; less than this is no finding.
LATENCY_SLACK = 1.05
ROWS_OF_EACH = 4
"""How often each recorded text is put into a row with others."""


def divergence(verification: Verification) -> str:
    """What a failed verification found, in a sentence."""
    stage = next(stage for stage in verification.stages if not stage.ok)
    found = "gives no comparable result" if stage.max_abs is None else f"is off by up to {stage.max_abs:.2e}"
    reason = "" if stage.reason is None else f": {stage.reason}"
    sample = "" if stage.sample is None else f" on {stage.sample}"
    return f"parity: the stage {stage.name!r} {found} (tolerance {stage.tolerance:.2e}){sample}{reason}"


def rows_problem(bundle: Bundle, engine: Engine | None, tolerance: float) -> str | None:
    """Why texts that share a row are not answered as each alone is, in a sentence; None: they are, or there are none.

    Args:
        bundle: with recorded inputs, of which rows are made.
        engine: what runs its programs; None: the target's own.
        tolerance: of an output, relative to the largest value.
    """
    packed = bundle.manifest.packed
    if packed is None:
        return None
    opened = engine or open_engine(bundle, threads=1)
    off, largest = 0.0, 0.0
    try:
        pipeline = open_program_pipeline(bundle, opened)
        cases, _ = read_vectors(bundle)
        windows = [each for case in cases for each in pipeline.windows(pipeline.raw_from_json(case.raw))]
        windows *= ROWS_OF_EACH
        for row in rows_of(windows, packed):
            shared = opened.run(packed.name, row_inputs(row, windows, packed))
            for number, outputs in row_outputs(row, shared, windows):
                alone = opened.run(windows[number].program, windows[number].inputs)
                for name, output in outputs.items():
                    found = output.astype(np.float64)
                    expected = alone[name][:, : found.shape[1]].astype(np.float64)  # of tokens, those of the text
                    off = max(off, float(np.abs(found - expected).max()))
                    largest = max(largest, float(np.abs(expected).max()))
    finally:
        if engine is None:
            opened.close()
    allowed = tolerance * largest
    if math.isfinite(off) and off <= allowed:
        return None
    return f"rows: texts that share one are off by up to {off:.2e} from each alone (tolerance {allowed:.2e})"


def answers_problem(found: Agreement, allowed: Allowance) -> str | None:
    """What a user would lose, beyond what a precision is allowed, in a sentence; or None.

    Of labelled data it is the accuracy that counts first. Answers near a boundary are not counted as lost: see
    `Agreement.lost`.
    """
    metric = found.metric
    if found.broken:
        return f"answers: NaN or infinity for {found.broken} of {found.n} inputs, one of them {found.sample}"
    if metric is not None and drop_beyond_chance(metric) > allowed.drop:
        return (
            f"answers: accuracy falls from {metric.before:.1%} to {metric.after:.1%} of {metric.n} labelled examples "
            f"(allowed: {allowed.drop:.0%} beyond chance)"
        )
    if found.lost is not None and found.lost > allowed.lost * found.n:
        return (
            f"answers: {found.lost} of {found.n} are others though the source is sure of them (allowed "
            f"{allowed.lost:.0%}; {found.near} of the source's lie near a boundary and are not counted), most of all "
            f"on {found.sample}"
        )
    if found.divergence is not None and found.divergence > allowed.divergence:
        return (
            f"answers: probabilities move by {found.divergence:.3f} on average over {found.n} inputs (allowed "
            f"{allowed.divergence:.2f}), most of all on {found.sample}"
        )
    if found.mean_cosine is not None and found.mean_cosine < allowed.cosine:
        return (
            f"answers: embeddings have a mean cosine of {found.mean_cosine:.4f} to the source's over {found.n} inputs "
            f"(expected {allowed.cosine}), least on {found.sample}"
        )
    return None


def drop_beyond_chance(metric: AccuracyChange) -> float:
    """The drop of accuracy less what as many changed answers come to by chance, once in 20 times (McNemar 1947)."""
    return metric.before - metric.after - ONE_SIDED_95 * math.sqrt(metric.changed) / metric.n


def boundary_note(found: Agreement) -> str | None:
    """What to know of answers that changed where the source itself is not sure, or None."""
    if found.top1 is None or found.lost is None:
        return None
    changed = round((1 - found.top1) * found.n)
    if changed - found.lost <= WORTH_TELLING * found.n:
        return None
    return (
        f"{changed - found.lost} of {found.n} answers are others where the source's own lie near a boundary, "
        f"{found.lost} elsewhere: --eval FILE with labelled data tells what that costs"
    )


def way_forward(precision: Precision, precisions: Sequence[str], inputs: Sequence[str] = (), kept: bool = False) -> str:
    """What to do about a refused bundle.

    Args:
        precision: the refused one.
        precisions: all that the target has.
        inputs: the options for inputs that were not given and would help, as `helpful_inputs` names them.
        kept: it was kept, to look into.
    """
    explained = "`verify --layers`, `doctor` and `eval`"
    keep = f"{explained} explain what was kept" if kept else f"--keep-refused keeps it for {explained} to explain"
    if precision.name == "fp32":
        return f"try another --attention or --target; {keep}"
    finer = [name for name in FINER.get(precision.name, ()) if name in precisions]
    ways = [f"try --precision {' or '.join(finer or ['fp32'])}"]
    if precision.allowance is not None:
        ways += [f"give {' or '.join(inputs)}"] if inputs else []
        if "mixed" in precisions and precision.name != "mixed":
            ways.append("`edgeformer sensitivity` finds the layers for a plan of --precision mixed")
    return "; ".join((*ways, keep))


def helpful_inputs(task: Task, judged: Judged) -> tuple[str, ...]:
    """The options by which a precision may do better or be judged fairly, of those that were not given."""
    calibration = "--calibration (inputs as the app meets them)"
    labelled = "--eval (the same with labels)"
    return (
        *((calibration,) if judged.calibration is None and task.calibrate is not None else ()),
        *((labelled,) if judged.evaluation is None and task.judged_by_labels else ()),
    )


def partition_problem(fp32: Lowered, lowered: Lowered) -> str | None:
    """Why the delegate's partitioning is worse than fp32's, or None.

    Each further partition copies tensors between the delegate and the rest, and shows an operator that it lacks.
    """
    if fp32.partitions is None or lowered.partitions is None or lowered.partitions <= fp32.partitions:
        return None
    return f"the delegate's partitions rose from {fp32.partitions} at fp32 to {lowered.partitions}"


def latency_warning(precision: str, latency_ms: float, fp32_latency_ms: float) -> str | None:
    """A warning that names the better choice when a precision is slower than fp32 here, or None."""
    if latency_ms <= fp32_latency_ms * LATENCY_SLACK:
        return None
    return (
        f"{precision} is {latency_ms / fp32_latency_ms:.2f} times as slow as fp32 on this machine "
        f"({latency_ms:.2f} against {fp32_latency_ms:.2f} ms): prefer fp32 where size does not decide"
    )


def agreement_of(
    bundle: Bundle, engine: Engine | None, references: Sequence[Reference]
) -> tuple[Agreement | None, str | None]:
    """Of a bundle over its recorded samples and `references`, in `engine` or else its own; None where the
    task has no such comparison.

    Where enough of them have labels these alone count: they are what the model is for.

    Returns:
        The agreement, or what the engine said where it failed.
    """
    compare = TASKS[bundle.manifest.task].agreement
    if compare is None:
        return None, None
    labelled = [each for each in references if each.label is not None]
    cases, _ = read_vectors(bundle)
    opened = engine or open_engine(bundle, threads=1)
    try:
        recorded = recorded_references(cases, open_program_pipeline(bundle, opened))
        judged = labelled if len(labelled) >= ENOUGH_LABELLED else (*recorded, *references)
        return agreement(opened, judged, bundle.manifest.postprocessing, load_attribute(compare)), None
    except EngineError as error:
        return None, f"answers: the engine failed: {error}"
    finally:
        if engine is None:
            opened.close()
