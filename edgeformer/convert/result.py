"""What a conversion made, as a sequence that shows itself: the tables that `convert` and `demo` print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from rich.console import RenderableType
from rich.table import Table

from edgeformer.convert.agreement import Agreement
from edgeformer.convert.convert import Converted, ConvertOptions, convert, steps_of
from edgeformer.progress import Progress, silent
from edgeformer_runtime.cli.console import err, out
from edgeformer_runtime.shown import Shown
from edgeformer_runtime.verify.verify import Stage, Verification


@dataclass(frozen=True, repr=False)
class ConversionResult(Shown, Sequence[Converted]):
    """What a conversion made: a sequence of `Converted`, one for each target and precision.

    Attributes:
        bundles: in the order of targets, and of precisions within a target.
        notes: what a user may want to know, a line each.
    """

    bundles: tuple[Converted, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the gates passed every bundle, so that all were delivered."""
        return all(bundle.ok for bundle in self.bundles)

    def to_json(self) -> list[dict[str, Any]]:
        """What `convert --json` prints: an object for each bundle."""
        return [bundle.to_json() for bundle in self.bundles]

    def tables(self) -> list[RenderableType]:
        """A row per bundle; then what its gates said."""
        return [converted_table(self.bundles), *remarks(self.bundles)]

    @overload
    def __getitem__(self, index: int) -> Converted: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Converted, ...]: ...
    def __getitem__(self, index: int | slice) -> Converted | tuple[Converted, ...]:
        return self.bundles[index]

    def __len__(self) -> int:
        return len(self.bundles)

    def __iter__(self) -> Iterator[Converted]:
        return iter(self.bundles)


def converted(options: ConvertOptions, progress: Progress | None = None) -> ConversionResult:
    """`convert`, with what it reported."""
    steps = _Steps(steps_of(options), progress)
    bundles = tuple(convert(options, steps))
    steps.finish()
    return ConversionResult(bundles, tuple(steps.notes))


class _Steps:
    """Counts the steps that `convert` reports, and keeps its notes."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress = total, progress or silent
        self._step, self._started = "", 0
        self.notes: list[str] = []

    def __call__(self, line: str) -> None:
        if line.startswith("note: "):
            self.notes.append(line.removeprefix("note: "))
            self._progress(line, 0, 0)
        else:
            self._progress(line, self._started, self._total)
            self._step = line
            self._started += 1

    def finish(self) -> None:
        """The last step is finished, too."""
        self._progress(self._step, self._total, self._total)


def print_converted(result: ConversionResult) -> None:
    """One row per bundle on stdout; what its gates said on stderr."""
    out.print(converted_table(result.bundles))
    for remark in remarks(result.bundles):
        err.print(remark)


def remarks(rows: Sequence[Converted]) -> list[str]:
    """What the gates of each bundle said, a line each: problems, what to do about them, warnings."""
    lines = []
    for row in rows:
        label = f"{row.target} {row.precision}"
        kept = f"kept as {row.path}" if row.kept else "the bundle was not delivered"
        lines += [f"failed: {label}: {problem}; {kept}" for problem in row.problems]
        lines += [] if row.advice is None else [f"{label}: {row.advice}"]
        lines += [f"warning: {label}: {warning}" for warning in row.warnings]
    return lines


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
