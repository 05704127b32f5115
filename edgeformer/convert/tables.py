"""What `convert` and `demo` print: their steps on stderr, their tables on stdout."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.table import Table

from edgeformer.convert.agreement import Agreement
from edgeformer.convert.convert import Converted
from edgeformer_runtime.cli.console import err, new_bar, out
from edgeformer_runtime.verify.verify import Stage, Verification


class Steps:
    """A bar that advances when the next step begins; where stderr is no terminal, a line per step.

    Such a line waits for the second step: an input that is refused while it is read gives its error's line alone.

    It writes to a duplicate of the descriptor, because converters hold back what their tools print to stderr.
    """

    def __init__(self, total: int) -> None:
        """`total`: how many steps there will be."""
        self._file = os.fdopen(os.dup(2), "w", encoding="utf-8")
        self._console = Console(file=self._file)
        self._bar = new_bar(self._console, redirect=False)
        self._begun = 0
        self._lines: list[str] = []
        self._task = self._bar.add_task("", total=total, completed=-1, note="")

    def __call__(self, step: str) -> None:
        """Begin a step; what begins with "note: " is printed and is no step."""
        if step.startswith("note: "):
            self._lines.append(step)
        else:
            self._begun += 1
            self._bar.update(self._task, description=step, advance=1)
            if not self._console.is_terminal:
                self._lines.append(step)
        if self._begun > 1:
            for line in self._lines:
                self._console.print(line, highlight=False, soft_wrap=True)
            self._lines.clear()

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()


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
