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
    fine = list(dict.fromkeys(each.check for each in diagnosis.findings if each.severity is Severity.FINE))
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
    table = Table(
        "program", "activations", f"pieces for {diagnosis.delegate or 'a delegate'}", "outside", "largest value"
    )
    for program in diagnosis.programs:
        planned = "" if program.planned_bytes is None else f", {program.planned_bytes / 1e6:.1f} MB planned"
        table.add_row(
            program.name,
            f"{program.activation_bytes / 1e6:.1f} MB{planned}",
            "-" if program.pieces is None else f"{program.pieces}{'' if program.measured else ' (predicted)'}",
            _outside(program),
            "-" if program.largest is None else f"{program.largest:.4g}",
        )
    return table


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
