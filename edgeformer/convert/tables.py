"""The tables that `convert` and `demo` print."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table

from edgeformer.convert.agreement import Agreement
from edgeformer.convert.convert import Converted
from edgeformer_runtime.cli.console import err, out
from edgeformer_runtime.verify.verify import Stage, Verification


def print_converted(rows: Sequence[Converted]) -> None:
    """One row per bundle on stdout; problems and warnings on stderr."""
    out.print(converted_table(rows))
    for row in rows:
        label = f"{row.target} {row.precision}"
        for problem in row.problems:
            kept = f"kept as {row.path}" if row.kept else "the bundle was not delivered"
            err.print(f"failed: {label}: {problem}; {kept}")
        if row.advice is not None:
            err.print(f"{label}: {row.advice}")
        for warning in row.warnings:
            err.print(f"warning: {label}: {warning}")


def converted_table(rows: Sequence[Converted]) -> Table:
    """Size, parity and agreement with the source model, partitions and latency of each bundle."""
    metrics = [row.agreement.metric for row in rows if row.agreement is not None and row.agreement.metric is not None]
    measured = ("accuracy",) if metrics else ()
    table = Table(
        "bundle",
        "size",
        "of fp32",
        "max |Δ|",
        "cosine",
        "same answer",
        *measured,
        "checked by",
        "partitions",
        "latency",
    )
    for row in rows:
        worst = _worst_program(row.verification)
        table.add_row(
            row.path.name if row.ok else f"{row.path.name} (failed)",
            f"{row.size_bytes / 1e6:.1f} MB",
            f"{row.size_bytes / row.fp32_size_bytes:.0%}",
            "-" if worst.max_abs is None else f"{worst.max_abs:.1e}",
            *_agreement(row.agreement),
            *([_accuracy(row.agreement)] if metrics else []),
            row.verification.executed_by,
            "-" if row.partitions is None else str(row.partitions),
            _latency(row),
        )
    return table


def _accuracy(found: Agreement | None) -> str:
    """Before and after, of the labelled inputs."""
    metric = None if found is None else found.metric
    return "-" if metric is None else f"{metric.before:.1%} → {metric.after:.1%} of {metric.n}"


def _agreement(found: Agreement | None) -> tuple[str, str]:
    """The cosine of `Agreement`, and how many inputs got the source's answer; of embeddings how many there were."""
    if found is None:
        return "-", "-"
    cosine = "-" if found.cosine is None else f"{found.cosine:.5f}"
    return cosine, f"{found.n} compared" if found.top1 is None else f"{found.top1:.1%} of {found.n}"


def _worst_program(verification: Verification) -> Stage:
    """The program that is furthest from the reference; the stages around the programs are first and last."""
    return max(verification.stages[1:-1], key=lambda stage: math.inf if stage.max_abs is None else stage.max_abs)


def _latency(row: Converted) -> str:
    if not row.ok:
        return "not measured"
    if row.latency_ms is None or row.fp32_latency_ms is None:
        return "not on this machine"
    return f"{row.latency_ms:.2f} ms (fp32 {row.fp32_latency_ms:.2f})"
