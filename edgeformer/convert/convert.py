"""`convert`: a checkpoint to verified bundles, one per target and precision."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgeformer.attention import ALL_KERNELS, APPROXIMATE_KERNELS
from edgeformer.checkpoints import source_index
from edgeformer.checkpoints.checkpoint import (
    Checkpoint,
    KeyReport,
    capped,
    check_approximate,
    load_module,
    open_checkpoint,
)
from edgeformer.convert.agreement import Agreement, Judged, Reference, check_labelled, references_for
from edgeformer.convert.bundle_writer import (
    check_destination,
    check_space,
    deliver,
    discard,
    finish,
    fresh_folder,
    requirements,
    scratch_in,
    write_bundle,
)
from edgeformer.convert.calibration import Grid, calibrated, or_recorded, or_samples, round_weights
from edgeformer.convert.gates import (
    agreement_of,
    answers_problem,
    boundary_note,
    divergence,
    helpful_inputs,
    latency_warning,
    partition_problem,
    rows_problem,
    way_forward,
)
from edgeformer.convert.layer_plan import LARGEST_INT4, plan_for, planned
from edgeformer.convert.lengths import Budget, ChosenLengths, lengths_for
from edgeformer.convert.options import ConvertOptions as ConvertOptions
from edgeformer.convert.parallel import convert_in_processes
from edgeformer.convert.result import ConversionResult, Converted
from edgeformer.convert.target import (
    PRECISIONS,
    Converter,
    Lowered,
    Precision,
    converter_for,
    verification_engine,
)
from edgeformer.foreign_code import rare_collections, told_of_tools
from edgeformer.models.family import Program
from edgeformer.tasks.task import TASKS, TaskSpec
from edgeformer_runtime.bench.measure import median_latencies_ms
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.bundle.vectors import Case, read_vectors
from edgeformer_runtime.delivery import alone, work_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import Progress, silent
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.verify.verify import Verification, verify

REFUSED_SUFFIX = ".refused"
"""Ends the name of a bundle that a gate refused and `--keep-refused` kept."""


@dataclass(frozen=True)
class Job:
    """One target's share of a conversion: the programs with the target's attention kernel, ready to lower.

    Attributes:
        planned: the programs with the formats of their layers, by precision that has one for each layer.
        plans: those formats by the names that the checkpoint's module gives the layers, by precision.
        lengths: of texts, where they were chosen for some.
    """

    name: str
    checkpoint: Checkpoint
    converter: Converter
    attention: str
    programs: tuple[Program, ...]
    planned: Mapping[str, tuple[Program, ...]]
    plans: Mapping[str, Mapping[str, str]]
    spec: TaskSpec
    precisions: tuple[Precision, ...]
    zipped: bool
    judged: Judged
    lengths: ChosenLengths | None = None

    def bundle_name(self, precision: Precision) -> str:
        """Of the bundle's folder."""
        return f"{self.name}.{self.converter.target.name}.{precision.name}"

    def packed(self, programs: tuple[Program, ...]) -> tuple[Program, ...]:
        """The program that takes several inputs in a row, made of others; none where there is none."""
        pack = TASKS[self.checkpoint.task].pack
        made = load_attribute(pack)(programs) if pack is not None and self.converter.target.packs else None
        return () if made is None else (made,)

    def lowered(self, programs: tuple[Program, ...]) -> tuple[Program, ...]:
        """All that model files hold of programs."""
        return (*programs, *self.packed(programs))


@dataclass(frozen=True)
class Storage:
    """How weights are stored: `format` in all layers, or, with `plan`, as that precision's plan says layer by layer."""

    format: str
    plan: str | None = None


@dataclass(frozen=True)
class Made:
    """What was lowered to a precision, and its bundle, which is not sealed yet."""

    precision: Precision
    lowered: Lowered
    bundle: Bundle


def convert(options: ConvertOptions, progress: Progress = silent) -> ConversionResult:
    """Convert a checkpoint into bundles `out/<name>.<target>.<precision>`.

    A bundle appears under its name only when it is complete and its gates passed; one of that name is replaced.

    Args:
        options: what to make.
        progress: called with each step, how many are finished and how many there are; and with a note, 0 and 0.

    Raises:
        InputError: a source, an option or a place for the output that cannot be used.
    """
    if options.jobs > 1 and len(options.targets) > 1:
        return convert_in_processes(options, progress)
    steps = _Steps(options, progress)
    jobs = _plan(options, steps)
    with rare_collections(), ExitStack() as stack:
        staging = stack.enter_context(work_folder(options.out, create=True))
        stack.enter_context(scratch_in(staging))
        for job in jobs:
            # The file that a tool writes, its compact copy, the bundle's; and each precision.
            check_space(staging, job.programs, 3 + len(job.precisions))
            for precision in job.precisions:
                stack.enter_context(alone(options.out / job.bundle_name(precision)))
        bundles = tuple(converted for job in jobs for converted in _run(job, options.out, staging, steps))
    steps.finish()
    chosen = tuple(job.lengths for job in jobs if job.lengths is not None)
    return ConversionResult(bundles, tuple(steps.notes), chosen)


class _Steps:
    """Counts the steps of a conversion, and keeps its notes."""

    def __init__(self, options: ConvertOptions, progress: Progress) -> None:
        lowered = {"fp32", *options.precisions}
        self._total = 1 + len(options.targets) * (len(lowered) + len(options.precisions))
        self._progress = progress
        self._step, self._started = "", 0
        self.notes: list[str] = []

    def begin(self, step: str) -> None:
        """The step before is finished."""
        self._progress(step, self._started, self._total)
        self._step = step
        self._started += 1

    def note(self, line: str) -> None:
        """Tell what a user may want to know."""
        self.notes.append(line)
        self._progress(f"note: {line}", 0, 0)

    def finish(self) -> None:
        """The last step is finished, too."""
        self._progress(self._step, self._total, self._total)


def _plan(options: ConvertOptions, steps: _Steps) -> list[Job]:
    """The jobs: everything that can be refused, before any expensive work."""
    converters = [converter_for(target, options.min_ios) for target in options.targets]
    steps.begin(f"reading {options.source}")
    checkpoint = open_checkpoint(
        options.source, options.revision, options.task, options.labels_file, options.prompt, options.language
    )
    options.check_for(checkpoint.task)
    unnoted = source_index.remember(checkpoint)
    check_approximate(options.attention, checkpoint.task)
    if options.evaluation is not None:
        check_labelled(options.evaluation, checkpoint)
    state = checkpoint.load_state()
    modules: dict[str, tuple[nn.Module, KeyReport]] = {}
    jobs: list[Job] = []
    problems: list[str] = []
    notes: list[str] = []
    for converter in converters:
        attention = options.attention or checkpoint.attention or converter.target.attention
        # Targets of one kernel share a module: converters leave it as it is, as each precision starts from it again.
        if attention not in modules:
            modules[attention] = load_module(checkpoint, ALL_KERNELS[attention], state)
        module, keys = modules[attention]
        job, cuts = _job(options, checkpoint, converter, attention, module)
        notes += (*keys.notes, *cuts, *filter(None, (_approximation(attention, checkpoint),)))
        problems += [
            f"{converter.target.name}: {problem}"
            for precision in job.precisions
            for problem in (
                *converter.check(job.planned.get(precision.name, job.programs), precision),
                *keys.problems(converter.target.recipe_of(precision).activations),
            )
        ]
        jobs.append(job)
    if problems:
        raise InputError("; ".join(dict.fromkeys(problems)))
    _check_places(jobs, options)
    for note in dict.fromkeys((*unnoted, *notes)):
        steps.note(note)
    return jobs


def _job(
    options: ConvertOptions, checkpoint: Checkpoint, converter: Converter, attention: str, module: nn.Module
) -> tuple[Job, tuple[str, ...]]:
    """One target's job, made of a module with the attention kernel of that name; and notes on its sequence lengths."""
    wanted = options.programs_for(converter.target)
    lengths, cuts = capped(checkpoint, wanted.seq_lens, asked=options.seq_lens is not None)
    chosen = None
    if options.lengths_from is not None:
        name, data = converter.target.name, options.lengths_from
        most = None
        cost = converter.target.length_cost
        if options.lengths_budget is not None and cost is not None:
            layers = sum(isinstance(each, nn.Linear) for each in module.modules())
            most = Budget.parse(options.lengths_budget).most(cost, layers)
        chosen = lengths_for(checkpoint, name, lengths, data, options.lengths_column, most)
        lengths = chosen.seq_lens
    wanted = replace(wanted, seq_lens=lengths)
    programs = checkpoint.programs(module, wanted)
    spec = TASKS[checkpoint.task].spec(checkpoint, programs, wanted)
    if options.calibration is not None:
        programs = calibrated(programs, spec, options.calibration, options.calibration_method)
    precisions = tuple(PRECISIONS[precision] for precision in options.precisions)
    found = {each.name: plan_for(each, converter.target, checkpoint.folder, options.plan) for each in precisions}
    plans = {name: plan for name, plan in found.items() if plan is not None}
    job = Job(
        name=options.name or _default_name(checkpoint.source.id),
        checkpoint=checkpoint,
        converter=converter,
        attention=attention,
        programs=programs,
        planned={name: planned(programs, module, plan) for name, plan in plans.items()},
        plans={name: plan.formats(module) for name, plan in plans.items()},
        spec=spec,
        precisions=precisions,
        zipped=options.zipped,
        judged=Judged(options.calibration, options.evaluation, options.keep_refused),
        lengths=chosen,
    )
    return job, cuts


def _check_places(jobs: Sequence[Job], options: ConvertOptions) -> None:
    """Refuse an output where something else is, or inside a bundle."""
    check_outside(options.out)
    for job in jobs:
        for precision in job.precisions:
            place = options.out / job.bundle_name(precision)
            check_destination(place, options.zipped)
            check_destination(place.with_name(place.name + REFUSED_SUFFIX), zipped=False)


def _run(job: Job, out: Path, staging: Path, steps: _Steps) -> list[Converted]:
    """Lower one job's programs, gate every precision against the fp32 bundle, then deliver what passed."""
    target = job.converter.target.name
    steps.begin(f"{target}: lowering to fp32")
    with told_of_tools(target, job.checkpoint.family.adapted):
        lowered = job.converter.lower_fp32(job.lowered(job.programs), fresh_folder(staging, f"{target}.lowered"))
    fp32 = _made(job, PRECISIONS["fp32"], lowered, staging)
    references = references_for(fp32.bundle, job.programs, job.judged)
    cases, _ = read_vectors(fp32.bundle)
    starts: dict[Storage, tuple[tuple[Program, ...], Lowered]] = {}
    gated: list[tuple[Converted, Bundle]] = []
    for precision in job.precisions:
        made = fp32
        if precision.name != "fp32":
            steps.begin(f"{target}: lowering to {precision.name}")
            storage = Storage(precision.recipe.weights, precision.name if precision.name in job.planned else None)
            if storage not in starts:
                starts[storage] = _start(job, storage, lowered, staging)
            programs, start = starts[storage]
            folder = fresh_folder(staging, f"{target}.{precision.name}.lowered")
            wanted = job.lowered(or_recorded(programs, cases))
            small = job.converter.lower_precision(wanted, start, precision, folder)
            made = _made(job, precision, small, staging, cases)
        steps.begin(f"{target}: verifying {precision.name}")
        gated.append(_gate(job, made, fp32, references, out))
    for converted, sealed in gated:
        if converted.ok or converted.kept:
            notes = deliver(sealed, converted.path, job.zipped and converted.ok)
            # A refusal that was kept of an earlier run says nothing of what is delivered now.
            stale = converted.path.with_name(converted.path.name + REFUSED_SUFFIX)
            if converted.ok and discard(stale, staging):
                notes.append(f"{stale} was refused by the gates of an earlier conversion, and is removed")
            for note in notes:
                steps.note(note)
    return [converted for converted, _ in gated]


def _start(job: Job, storage: Storage, fp32: Lowered, staging: Path) -> tuple[tuple[Program, ...], Lowered]:
    """What a precision is made of: programs whose weights its integers can hold, if there are inputs to round them by.

    Args:
        job: with the storage's plan among its planned precisions, if it has one.
        storage: int8 or int4, in all layers or in some of a plan, is rounded for; others have nothing to round.
        fp32: the programs as they are, lowered.
        staging: a folder for others.
    """
    programs = job.programs if storage.plan is None else job.planned[storage.plan]
    with_inputs = or_samples(programs, job.spec)
    # Without a plan 4 bits have offsets, which rounding knows nothing of.
    formats = {each for program in programs for each in program.layer_formats.values()}
    rounds = bool(formats & {"int8", "int4"}) if storage.plan is not None else storage.format == "int8"
    if not with_inputs[0].calibration or not rounds:
        return programs, fp32
    target = job.converter.target
    rounded = round_weights(with_inputs, None if target.int4.has_offsets else Grid(LARGEST_INT4, target.int4.block))
    if not job.converter.quantizes_files:
        return rounded, fp32
    folder = fresh_folder(staging, f"{target.name}.{storage.plan or storage.format}.rounded")
    return rounded, job.converter.lower_fp32(job.lowered(rounded), folder)


def _made(job: Job, precision: Precision, lowered: Lowered, staging: Path, cases: Sequence[Case] | None = None) -> Made:
    bundle = write_bundle(
        folder=fresh_folder(staging, job.bundle_name(precision)),
        name=job.name,
        checkpoint=job.checkpoint,
        converter=job.converter,
        precision=precision,
        attention=job.attention,
        programs=job.programs,
        # Activations with ranges of their own have others in a row: answers would depend on how many texts there are.
        packed=() if precision.recipe.activations == "int8" else job.packed(job.programs),
        lowered=lowered,
        spec=job.spec,
        cases=cases,
    )
    return Made(precision, lowered, bundle)


def _gate(job: Job, made: Made, fp32: Made, references: tuple[Reference, ...], out: Path) -> tuple[Converted, Bundle]:
    """Verify a bundle, compare it with its fp32 sibling, and seal it with what was found in its report.

    `references` are inputs for its agreement with the source, beside the recorded ones.
    """
    precision, bundle = made.precision, made.bundle
    engine = verification_engine(bundle)
    verification = verify(bundle, engine)
    agreed, failed = agreement_of(bundle, engine, references)
    found = (
        None if verification.ok else divergence(verification),
        failed if verification.ok else None,
        rows_problem(bundle, engine, precision.output_tolerance) if verification.ok else None,
        answers_problem(agreed, precision.allowance)
        if agreed is not None and precision.allowance is not None
        else None,
        partition_problem(fp32.lowered, made.lowered),
    )
    problems = tuple(problem for problem in found if problem is not None)
    inputs = helpful_inputs(job.spec.task, job.judged)
    kept = bool(problems) and job.judged.keep_refused
    advice = way_forward(precision, job.converter.precisions, inputs, kept) if problems else None
    # What is refused is not worth measuring.
    fp32_latency_ms, latency_ms = (None, None) if engine or problems else median_latencies_ms((fp32.bundle, bundle))
    slower = latency_warning(precision.name, latency_ms, fp32_latency_ms) if latency_ms and fp32_latency_ms else None
    boundary = None if agreed is None or problems else boundary_note(agreed)
    sealed = finish(bundle, _report_of(job, made, fp32, verification, agreed, problems), problems if kept else ())
    converted = Converted(
        path=out / (job.bundle_name(precision) + (REFUSED_SUFFIX if kept else "")),
        target=job.converter.target.name,
        precision=precision.name,
        size_bytes=sealed.size_bytes,
        fp32_size_bytes=fp32.bundle.size_bytes,
        verification=verification,
        agreement=agreed,
        partitions=made.lowered.partitions,
        latency_ms=latency_ms,
        fp32_latency_ms=fp32_latency_ms,
        problems=problems,
        warnings=tuple(filter(None, (slower, boundary, requirements(job.converter, job.spec)[1]))),
        kept=kept,
        advice=advice,
    )
    return converted, sealed


def _report_of(
    job: Job,
    made: Made,
    fp32: Made,
    verification: Verification,
    agreed: Agreement | None,
    problems: tuple[str, ...],
) -> dict[str, Any]:
    """The object in report.json: what the gates found, and of a mixed bundle the format of each layer."""
    name = made.precision.name
    approximation = _approximation(job.attention, job.checkpoint)
    return {
        "verification": verification.to_json(),
        "agreement": None if agreed is None else agreed.to_json(),
        "partitions": {"fp32": fp32.lowered.partitions, name: made.lowered.partitions},
        "problems": list(problems),
        **({"layers": dict(job.plans[name])} if name == "mixed" else {}),
        **({} if approximation is None else {"approximation": approximation}),
        **({} if job.checkpoint.family.adapted is None else {"adapted": job.checkpoint.family.adapted}),
        **({} if job.lengths is None else {"lengths": job.lengths.to_json()}),
    }


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


def _default_name(source_id: str) -> str:
    """`hub:org/Tiny BERT` to `Tiny-BERT`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", re.split(r"[:/]", source_id)[-1]).strip("-.") or "model"
