"""`convert`: a checkpoint to verified bundles, one per target and precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgeformer.attention import ALL_KERNELS, APPROXIMATE_KERNELS
from edgeformer.checkpoints import source_index
from edgeformer.checkpoints.checkpoint import Checkpoint, capped, check_approximate, load_module, open_checkpoint
from edgeformer.convert.agreement import Agreement, Reference
from edgeformer.convert.bundle_writer import (
    check_destination,
    check_space,
    deliver,
    discard,
    fresh_folder,
    scratch_in,
    write_bundle,
    write_refusal,
    write_report,
)
from edgeformer.convert.calibration import LARGEST_INT4, Grid, calibrated, or_recorded, or_samples, round_weights
from edgeformer.convert.gate_inputs import Judged, check_labelled, references_for
from edgeformer.convert.gates import (
    agreement_of,
    answers_problem,
    boundary_note,
    divergence,
    helpful_inputs,
    latencies_of,
    latency_warning,
    partition_problem,
    way_forward,
)
from edgeformer.convert.layer_plan import CHECKPOINT_FILE, CHECKPOINT_KEY, LayerPlan, plan_of_checkpoint, planned
from edgeformer.convert.options import ConvertOptions as ConvertOptions
from edgeformer.convert.target import (
    PRECISIONS,
    Converter,
    Lowered,
    Precision,
    Target,
    converter_for,
    verification_engine,
)
from edgeformer.models.program import Program
from edgeformer.tasks.interface import Interface, interface_for
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.folder import bundle_around
from edgeformer_runtime.bundle.vectors import Case, read_vectors
from edgeformer_runtime.delivery import alone, work_folder
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.shown import Shown
from edgeformer_runtime.verify.verify import Verification, verify

Report = Callable[[str], None]

REFUSED_SUFFIX = ".refused"
"""Ends the name of a bundle that a gate refused and `--keep-refused` kept."""


@dataclass(frozen=True, repr=False)
class Converted(Shown):
    """One bundle, and what its gates found.

    Attributes:
        path: its folder; of one that was refused the place where it would be, or with `kept` is, under a marked name.
        target: that it was converted for.
        precision: of its weights.
        size_bytes: of its files together.
        fp32_size_bytes: of the same bundle at fp32.
        verification: its recorded vectors replayed.
        agreement: with the source model's answers; None where the engine failed, and of speech.
        partitions: how many parts of the graph the delegate takes; None where that is not counted.
        latency_ms: median of a run on this machine, in ms; None where it is refused or does not run here.
        fp32_latency_ms: the same of the bundle at fp32, measured in turns with it.
        problems: why gates refused it; none where it was delivered.
        warnings: what a user may want to know, a line each.
        kept: it was refused and written nevertheless.
        advice: what to do about a refusal.
    """

    path: Path
    target: str
    precision: str
    size_bytes: int
    fp32_size_bytes: int
    verification: Verification
    agreement: Agreement | None
    partitions: int | None
    latency_ms: float | None
    fp32_latency_ms: float | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    kept: bool = False
    advice: str | None = None

    @property
    def ok(self) -> bool:
        """Whether every gate passed."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The row that `convert --json` prints."""
        return {
            "path": str(self.path) if self.ok else None,
            "refused_path": str(self.path) if self.kept else None,
            "target": self.target,
            "precision": self.precision,
            "size_bytes": self.size_bytes,
            "fp32_size_bytes": self.fp32_size_bytes,
            "agreement": None if self.agreement is None else self.agreement.to_json(),
            "partitions": self.partitions,
            "latency_ms": self.latency_ms,
            "fp32_latency_ms": self.fp32_latency_ms,
            "ok": self.ok,
            "problems": list(self.problems),
            "advice": self.advice,
            "warnings": list(self.warnings),
            "verification": self.verification.to_json(),
        }

    def tables(self) -> Sequence[RenderableType]:
        """Its row, and what its gates said."""
        from edgeformer.convert.result import ConversionResult  # which imports this module

        return ConversionResult((self,)).tables()


@dataclass(frozen=True)
class Job:
    """One target's share of a conversion: the programs with the target's attention kernel, ready to lower.

    `planned` are the same for precisions that have a format for each layer, by precision.
    """

    name: str
    checkpoint: Checkpoint
    converter: Converter
    attention: str
    programs: tuple[Program, ...]
    planned: Mapping[str, tuple[Program, ...]]
    interface: Interface
    precisions: tuple[Precision, ...]
    zipped: bool
    judged: Judged


def _silent(step: str) -> None:
    """Report to nobody."""


def convert(options: ConvertOptions, report: Report = _silent) -> list[Converted]:
    """Convert a checkpoint into bundles `out/<name>.<target>.<precision>`.

    A bundle appears under its name only when it is complete and its gates passed; one of that name is replaced.

    Args:
        options: what to make.
        report: called with a line before each step.

    Raises:
        InputError: a source, an option or a place for the output that cannot be used.
    """
    jobs, notes = _plan(options, report)
    for note in notes:
        report(f"note: {note}")
    with ExitStack() as stack:
        staging = stack.enter_context(work_folder(options.out, create=True))
        stack.enter_context(scratch_in(staging))
        for job in jobs:
            # The file that a tool writes, its compact copy, the bundle's; and each precision.
            check_space(staging, job.programs, 3 + len(job.precisions))
            for precision in job.precisions:
                stack.enter_context(alone(options.out / _bundle_name(job, precision)))
        return [converted for job in jobs for converted in _run(job, options.out, staging, report)]


def steps_of(options: ConvertOptions) -> int:
    """How many steps `convert` will report, for a progress bar."""
    lowered = {"fp32", *options.precisions}
    return 1 + len(options.targets) * (len(lowered) + len(options.precisions))


def _plan(options: ConvertOptions, report: Report) -> tuple[list[Job], tuple[str, ...]]:
    """Everything that can be refused, before any expensive work."""
    converters = [converter_for(target, options.min_ios) for target in options.targets]
    report(f"reading {options.source}")
    checkpoint = open_checkpoint(options.source, options.revision, options.task, options.labels_file, options.prompt)
    unnoted = source_index.remember(checkpoint)
    check_approximate(options.attention, checkpoint.task)
    if options.evaluation is not None:
        check_labelled(options.evaluation, checkpoint)
    name = options.name or _default_name(checkpoint.source.id)
    precisions = tuple(PRECISIONS[precision] for precision in options.precisions)
    judged = Judged(options.calibration, options.evaluation, options.keep_refused)
    jobs: list[Job] = []
    problems: list[str] = []
    notes = unnoted
    for converter in converters:
        attention = options.attention or checkpoint.attention or converter.target.attention
        module, keys = load_module(checkpoint, ALL_KERNELS[attention])
        wanted = options.programs_for(converter.target)
        lengths, cuts = capped(checkpoint, wanted.seq_lens)
        wanted = replace(wanted, seq_lens=lengths)
        notes = (*unnoted, *keys.notes, *cuts, *filter(None, (_approximation(attention, checkpoint),)))
        programs = checkpoint.family.programs(module, checkpoint.config, wanted)
        interface = interface_for(checkpoint, programs, wanted)
        if options.calibration is not None:
            method = options.calibration_method
            programs = calibrated(programs, interface, options.calibration, method)
        plans = {each.name: _plan_of(each, converter.target, checkpoint, options.plan) for each in precisions}
        layers = {name: planned(programs, module, plan) for name, plan in plans.items() if plan is not None}
        problems += [
            f"{converter.target.name}: {problem}"
            for precision in precisions
            for problem in (
                *converter.check(layers.get(precision.name, programs), precision),
                *keys.problems(converter.target.recipe_of(precision).activations),
            )
        ]
        jobs.append(
            Job(name, checkpoint, converter, attention, programs, layers, interface, precisions, options.zipped, judged)
        )
    if problems:
        raise InputError("; ".join(dict.fromkeys(problems)))
    bundle = bundle_around(options.out)
    if bundle is not None:
        raise InputError(
            f"--out {options.out} lies in the bundle {bundle.name}, which it would corrupt: choose another"
        )
    for job in jobs:
        for precision in precisions:
            place = options.out / _bundle_name(job, precision)
            check_destination(place, options.zipped)
            check_destination(place.with_name(place.name + REFUSED_SUFFIX), zipped=False)
    return jobs, notes


def _plan_of(precision: Precision, target: Target, checkpoint: Checkpoint, file: Path | None) -> LayerPlan | None:
    """The formats of the layers, at precisions that have one for each."""
    if precision.name == "int4":
        return None if target.int4.has_offsets else LayerPlan(default="int4")
    if precision.name != "mixed":
        return None
    plan = LayerPlan.read(file) if file is not None else plan_of_checkpoint(checkpoint.folder)
    if plan is None:
        raise InputError(
            f"mixed needs a format for each layer: give --plan FILE, or a checkpoint whose {CHECKPOINT_FILE} has a "
            f'"{CHECKPOINT_KEY}"'
        )
    return plan


def _run(job: Job, out: Path, staging: Path, report: Report) -> list[Converted]:
    """Lower one job's programs, gate every precision against the fp32 bundle, then deliver what passed."""
    target = job.converter.target.name
    converted: list[Converted] = []
    with ExitStack() as stack:
        report(f"{target}: lowering to fp32")
        fp32_lowered = job.converter.lower_fp32(job.programs, fresh_folder(staging, f"{target}.lowered"))
        fp32 = stack.enter_context(_bundle(job, PRECISIONS["fp32"], fp32_lowered, staging))
        cases, _ = read_vectors(fp32)
        references = references_for(fp32, job.programs, job.judged)
        starts: dict[str, tuple[tuple[Program, ...], Lowered]] = {}
        for precision in job.precisions:
            lowered, bundle = fp32_lowered, fp32
            if precision.name != "fp32":
                report(f"{target}: lowering to {precision.name}")
                kind = precision.name if precision.name in job.planned else precision.recipe.weights
                if kind not in starts:
                    starts[kind] = _start(job, kind, fp32_lowered, staging)
                programs, start = starts[kind]
                lowered = job.converter.lower_precision(
                    or_recorded(programs, cases),
                    start,
                    precision,
                    fresh_folder(staging, f"{target}.{precision.name}.lowered"),
                )
                bundle = stack.enter_context(_bundle(job, precision, lowered, staging, cases))
            report(f"{target}: verifying {precision.name}")
            converted.append(_gate(job, precision, (fp32_lowered, lowered), (fp32, bundle), references, staging, out))
    for row in converted:
        if row.ok or row.kept:
            made = staging / row.path.name.removesuffix(REFUSED_SUFFIX)
            notes = deliver(made, row.path, job.zipped and row.ok)
            # A refusal that was kept of an earlier run says nothing of what is delivered now.
            stale = row.path.with_name(row.path.name + REFUSED_SUFFIX)
            if row.ok and discard(stale, made.parent):
                notes.append(f"{stale} was refused by the gates of an earlier conversion, and is removed")
            for note in notes:
                report(f"note: {note}")
    return converted


def _approximation(attention: str, checkpoint: Checkpoint) -> str | None:
    """What a report says of an attention kernel that is not exact, or not the one that was trained."""
    if attention == checkpoint.attention:
        learned = "which it was distilled into"
    elif attention in APPROXIMATE_KERNELS:
        learned = "which answers otherwise than as it was trained"
    elif checkpoint.attention is not None:
        learned = f"the model was distilled into {checkpoint.attention}: it answers otherwise"
        return f"{attention} attention is exact, and {learned}"
    else:
        return None
    return (
        f"{attention} attention is approximate: all comparisons are with the source model under the same attention,"
        f" {learned}"
    )


def _start(job: Job, kind: str, fp32: Lowered, staging: Path) -> tuple[tuple[Program, ...], Lowered]:
    """What a precision is made of: programs whose weights its integers can hold, if there are inputs to round them by.

    Args:
        job: with `kind` among its planned precisions, or a type of weights.
        kind: "int8", or what has nothing to round; or a precision whose layers have formats of their own.
        fp32: the programs as they are, lowered.
        staging: a folder for others.
    """
    programs = job.planned.get(kind, job.programs)
    with_inputs = or_samples(programs, job.interface)
    formats = {each for program in programs for each in program.layer_formats.values()} or {kind}
    if not with_inputs[0].calibration or not formats & {"int8", "int4"} or (kind == "int4" and kind not in job.planned):
        return programs, fp32
    target = job.converter.target
    rounded = round_weights(with_inputs, None if target.int4.has_offsets else Grid(LARGEST_INT4, target.int4.block))
    if not job.converter.quantizes_files:
        return rounded, fp32
    return rounded, job.converter.lower_fp32(rounded, fresh_folder(staging, f"{target.name}.{kind}.rounded"))


def _bundle(
    job: Job, precision: Precision, lowered: Lowered, staging: Path, cases: Sequence[Case] | None = None
) -> Bundle:
    return write_bundle(
        folder=fresh_folder(staging, _bundle_name(job, precision)),
        name=job.name,
        checkpoint=job.checkpoint,
        converter=job.converter,
        precision=precision,
        attention=job.attention,
        programs=job.programs,
        lowered=lowered,
        interface=job.interface,
        cases=cases,
    )


def _gate(
    job: Job,
    precision: Precision,
    lowered: tuple[Lowered, Lowered],
    bundles: tuple[Bundle, Bundle],
    references: tuple[Reference, ...],
    staging: Path,
    out: Path,
) -> Converted:
    """Verify a bundle, compare it with its fp32 sibling, and write what was found into its report.

    `lowered` and `bundles` hold the fp32 one first, then the one that is judged; `references` are inputs for its
    agreement with the source, beside the recorded ones.
    """
    fp32_lowered, this_lowered = lowered
    fp32, bundle = bundles
    engine = verification_engine(bundle)
    verification = verify(bundle, engine)
    agreed, failed = _agreement(bundle, engine, references)
    found = (
        None if verification.ok else divergence(verification),
        failed if verification.ok else None,
        answers_problem(agreed, precision.allowance)
        if agreed is not None and precision.allowance is not None
        else None,
        partition_problem(fp32_lowered, this_lowered),
    )
    problems = tuple(problem for problem in found if problem is not None)
    inputs = helpful_inputs(bundle.manifest.postprocessing, job.judged)
    kept = bool(problems) and job.judged.keep_refused
    advice = way_forward(precision, job.converter.precisions, inputs, kept) if problems else None
    # What is refused is not worth measuring.
    latency_ms, fp32_latency_ms = (None, None) if engine or problems else latencies_of(fp32, bundle)
    slower = latency_warning(precision.name, latency_ms, fp32_latency_ms) if latency_ms and fp32_latency_ms else None
    boundary = None if agreed is None or problems else boundary_note(agreed)
    approximation = _approximation(job.attention, job.checkpoint)
    folder = staging / _bundle_name(job, precision)
    sealed = write_report(
        bundle,
        folder,
        {
            "verification": verification.to_json(),
            "agreement": None if agreed is None else agreed.to_json(),
            "partitions": {"fp32": fp32_lowered.partitions, precision.name: this_lowered.partitions},
            "problems": list(problems),
            **({} if approximation is None else {"approximation": approximation}),
        },
    )
    if kept:
        sealed.close()
        sealed = write_refusal(sealed, folder, problems)
    with sealed:
        return Converted(
            path=out / (folder.name + (REFUSED_SUFFIX if kept else "")),
            target=job.converter.target.name,
            precision=precision.name,
            size_bytes=sealed.size_bytes,
            fp32_size_bytes=fp32.size_bytes,
            verification=verification,
            agreement=agreed,
            partitions=this_lowered.partitions,
            latency_ms=latency_ms,
            fp32_latency_ms=fp32_latency_ms,
            problems=problems,
            warnings=tuple(filter(None, (slower, boundary))),
            kept=kept,
            advice=advice,
        )


def _agreement(
    bundle: Bundle, engine: Engine | None, references: tuple[Reference, ...]
) -> tuple[Agreement | None, str | None]:
    """The agreement, or what the engine said where it failed."""
    try:
        return agreement_of(bundle, engine, references), None
    except EngineError as error:
        return None, f"answers: the engine failed: {error}"


def _bundle_name(job: Job, precision: Precision) -> str:
    return f"{job.name}.{job.converter.target.name}.{precision.name}"


def _default_name(source_id: str) -> str:
    """`hub:org/Tiny BERT` to `Tiny-BERT`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.split(r"[:/]", source_id)[-1]).strip("-.") or "model"
