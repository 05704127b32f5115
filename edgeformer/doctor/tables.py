"""What `doctor` prints: operators, programs, findings by severity, and a line for what is fine."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table

from edgeformer.doctor.diagnosis import Diagnosis, ProgramFacts
from edgeformer.doctor.finding import Finding, Severity

SUPPORTED = {True: "yes", False: "NO", None: "not known"}
NAMED_OPERATORS = 3


def diagnosis_tables(diagnosis: Diagnosis) -> list[RenderableType]:
    """In the order of printing."""
    parts: list[RenderableType] = []
    if diagnosis.operators:
        parts.append(_operators(diagnosis))
    if diagnosis.programs:
        parts.append(_programs(diagnosis))
    told = [finding for finding in diagnosis.findings if finding.severity is not Severity.FINE]
    if told:
        parts.append(_findings(told))
    others = {finding.check for finding in told}
    fine = [each for each in dict.fromkeys(finding.check for finding in diagnosis.findings) if each not in others]
    if fine:
        parts.append(f"fine: {', '.join(fine)}")
    return parts


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
        columns[f"pieces for {diagnosis.delegate}"] = [_pieces(program) for program in diagnosis.programs]
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
