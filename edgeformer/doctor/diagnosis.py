"""Examines a bundle with every check of the literal table, and puts what they say together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rich.console import RenderableType
from rich.table import Table

from edgeformer.doctor.check_bundle import (
    check_integrity,
    check_memory,
    check_placement,
    check_systems,
    check_weights,
    examine_libraries,
    is_native,
    refused,
)
from edgeformer.doctor.check_graph import (
    check_masks,
    check_operators,
    check_overflow,
    check_partitions,
    check_processors,
    check_structure,
)
from edgeformer.doctor.examination import Examination, Ranges
from edgeformer.doctor.examiner import (
    DoctorOptions,
    Finding,
    Partitioning,
    Severity,
    Support,
    error,
    examiner_for,
    info,
)
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.interface import CountProgress, Shown, StrPath
from edgeformer_runtime.model_files import check_model_files
from edgeformer_runtime.registry import load_attribute

Check = Callable[[Examination], Iterable[Finding]]

# In the order in which they run; findings are shown by severity. None: it is the task's, if that has one of the name.
CHECKS: dict[str, Check | None] = {
    "integrity": check_integrity,
    "structure": check_structure,
    "operators": check_operators,
    "systems": check_systems,
    "processors": check_processors,
    "labels": None,
    "mask": check_masks,
    "weights": check_weights,
    "alignment": check_placement,
    "alignment_heads": None,
    "memory": check_memory,
    "tokenizer": None,
    "partitions": check_partitions,
    "float16": check_overflow,
}
# They open the model in native code, which a broken graph may crash.
RUN_THE_MODEL = ("partitions", "float16")


@dataclass(frozen=True)
class ProgramFacts:
    """What is known of one program.

    Attributes:
        name: as in the manifest.
        activation_bytes: the most that is alive at once.
        planned_bytes: what the file plans for it; None: nothing.
        pieces: how many the delegate gets; None: there is none.
        outside: how often each operator is left to the runtime's own kernels.
        measured: whether `pieces` and `outside` are found and not predicted.
        largest: the largest number that it computes on the recorded vectors; None: not known.
        largest_at: the operator that computes it.
    """

    name: str
    activation_bytes: int
    planned_bytes: int | None
    pieces: int | None = None
    outside: dict[str, int] = field(default_factory=dict)
    measured: bool = False
    largest: float | None = None
    largest_at: str | None = None


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """What was found.

    Attributes:
        name: of the bundle's or library's file.
        runtime: the runtime that was asked about, with its version; None: none was.
        delegate: who takes partitions of the programs; None: nobody.
        operators: each operator of the model's files, and whether the runtime has it.
        programs: what is known of each program.
        findings: errors first, then warnings, then the rest, in the order of the checks.
    """

    name: str
    runtime: str | None
    delegate: str | None
    operators: tuple[Support, ...]
    programs: tuple[ProgramFacts, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing has to be repaired."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """JSON values; a number that is infinite or NaN is null."""
        return {
            "ok": self.ok,
            "name": self.name,
            "runtime": self.runtime,
            "delegate": self.delegate,
            "operators": [
                vars(support.operator) | {"needs": support.needs, "supported": support.supported}
                for support in self.operators
            ],
            "programs": [vars(program) | {"largest": _finite(program.largest)} for program in self.programs],
            "findings": [finding.to_json() for finding in self.findings],
        }

    def tables(self) -> list[RenderableType]:
        """Operators, programs, findings by severity, and a line for what is fine."""
        parts: list[RenderableType] = []
        if self.operators:
            parts.append(_operators(self))
        if self.programs:
            parts.append(_programs(self))
        told = [finding for finding in self.findings if finding.severity is not Severity.FINE]
        if told:
            parts.append(_findings(told))
        others = {finding.check for finding in told}
        fine = [each for each in dict.fromkeys(finding.check for finding in self.findings) if each not in others]
        if fine:
            parts.append(f"fine: {', '.join(fine)}")
        return parts


def diagnose(path: StrPath, options: DoctorOptions, report: CountProgress | None = None) -> Diagnosis:
    """Examine a bundle, or the native libraries of an app.

    Args:
        path: a bundle's folder or zip, or a `.so`, `.apk`, `.aar` or `.aab` file.
        options: what it is meant for.
        report: called with the number of finished checks and of all.

    Raises:
        BundleError: the path is no bundle at all; a bundle that is corrupted is a finding.
        EngineError: the target's tools are not installed.
        InputError: an option that cannot be used.
    """
    path = Path(path)
    if is_native(path):
        return Diagnosis(path.name, None, None, (), (), _sorted(examine_libraries(path)))
    try:
        opened = Bundle.open(path, options.required, allow_refused=True)
    except BundleError as problem:
        found = refused(path, problem, bool(options.required.keys))
        return Diagnosis(path.name, None, None, (), (), (found,))
    with opened as bundle:
        examiner = examiner_for(bundle.manifest.target)
        try:
            view = examiner.read(bundle)
        except BundleError as problem:
            return Diagnosis(path.name, None, None, (), (), (_unreadable(problem),))
        examination = Examination(bundle, examiner, view, options)
        findings, made = _run_checks(examination, report)
        partitions = examination.partitions if "partitions" in made else ()
        ranges = examination.ranges if "float16" in made else None
        return Diagnosis(
            path.name,
            f"{examiner.runtime_name} {examination.runtime}",
            partitions[0].delegate if partitions else None,
            examination.support,
            tuple(_facts(program.name, examination, partitions, ranges) for program in view.programs),
            _sorted(findings),
        )


def _run_checks(examination: Examination, report: CountProgress | None) -> tuple[list[Finding], set[str]]:
    """What the checks say, and the names of those that could be made."""
    findings: list[Finding] = []
    made: set[str] = set()
    of_task = TASKS[examination.bundle.manifest.task].checks
    checks = CHECKS | {name: cast(Check, load_attribute(entry)) for name, entry in of_task.items()}
    for number, (name, check) in enumerate(checks.items()):
        broken = any(each.check == "structure" and each.severity is Severity.ERROR for each in findings)
        if broken and name in RUN_THE_MODEL:
            findings.append(info(name, "not checked: a model with this structure is not run"))
        else:
            try:
                if name in RUN_THE_MODEL:
                    check_model_files(examination.bundle)
                findings += check(examination) if check is not None else ()
                made.add(name)
            except (BundleError, EngineError) as problem:
                findings.append(
                    error(name, str(problem), "the check could not be made", "repair what it says and run doctor again")
                )
        if report is not None:
            report(number + 1, len(checks))
    return findings, made


def _facts(
    name: str, examination: Examination, partitions: tuple[Partitioning, ...], ranges: Ranges | None
) -> ProgramFacts:
    program = next(each for each in examination.view.programs if each.name == name)
    found = next((each for each in partitions if each.program == name), None)
    peak = None if ranges is None else ranges.peak(name)
    return ProgramFacts(
        name,
        examination.peaks[name].size_bytes,
        program.planned_bytes,
        None if found is None else found.pieces,
        {} if found is None else dict(found.outside),
        found is not None and found.measured,
        None if peak is None else peak[1],
        None if peak is None else peak[0],
    )


def _unreadable(problem: BundleError) -> Finding:
    return error(
        "structure",
        str(problem),
        "no runtime opens such a file",
        "fetch the bundle from where it was published, or convert the checkpoint again",
    )


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = list(Severity)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def _finite(number: float | None) -> float | None:
    return number if number is not None and abs(number) < float("inf") else None


# The tables of a diagnosis.


SUPPORTED = {True: "yes", False: "NO", None: "not known"}
NAMED_OPERATORS = 3


def _operators(diagnosis: Diagnosis) -> Table:
    table = Table("operator", "version", "count", "since", diagnosis.runtime or "", title=diagnosis.name)
    for support in diagnosis.operators:
        operator = support.operator
        table.add_row(
            operator.name,
            "-" if operator.version is None else str(operator.version),
            str(operator.count),
            support.needs or "-",
            SUPPORTED[support.supported],
        )
    return table


def _programs(diagnosis: Diagnosis) -> Table:
    """A row per program; columns that no program has anything for are left out."""
    columns: dict[str, list[str]] = {
        "program": [program.name for program in diagnosis.programs],
        "activations": [_activations(program) for program in diagnosis.programs],
    }
    if diagnosis.delegate is not None:
        columns[f"partitions for {diagnosis.delegate}"] = [_pieces(program) for program in diagnosis.programs]
        columns["outside"] = [_outside(program) for program in diagnosis.programs]
    if any(program.largest is not None for program in diagnosis.programs):
        columns["largest value"] = [
            "-" if program.largest is None else f"{program.largest:.4g}" for program in diagnosis.programs
        ]
    table = Table(*columns)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _activations(program: ProgramFacts) -> str:
    planned = "" if program.planned_bytes is None else f", {program.planned_bytes / 1e6:.1f} MB planned"
    return f"{program.activation_bytes / 1e6:.1f} MB{planned}"


def _pieces(program: ProgramFacts) -> str:
    return "-" if program.pieces is None else f"{program.pieces}{'' if program.measured else ' (predicted)'}"


def _outside(program: ProgramFacts) -> str:
    most = sorted(program.outside.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {count}" for name, count in most[:NAMED_OPERATORS])
    return (named + (", ..." if len(most) > NAMED_OPERATORS else "")) or "-"


def _findings(findings: list[Finding]) -> Table:
    table = Table("severity", "check", "finding", show_lines=True)
    for finding in findings:
        lines = [finding.what]
        lines += [f"Why it matters: {finding.why}."] if finding.why else []
        lines += [f"What to do: {finding.do}."] if finding.do else []
        table.add_row(finding.severity.value, finding.check, "\n".join(lines))
    return table
