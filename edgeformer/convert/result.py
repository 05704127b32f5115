"""What a conversion made, as a sequence that shows itself: the tables that `convert` and `demo` print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from rich.console import RenderableType
from rich.table import Table

from edgeformer.convert.agreement import Agreement
from edgeformer.convert.lengths import ChosenLengths
from edgeformer_runtime.cli.console import err, out
from edgeformer_runtime.interface import Shown
from edgeformer_runtime.verify.verify import Stage, Verification


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
        return ConversionResult((self,)).tables()


@dataclass(frozen=True, repr=False)
class ConversionResult(Shown, Sequence[Converted]):
    """What a conversion made: a sequence of `Converted`, one for each target and precision.

    Attributes:
        bundles: in the order of targets, and of precisions within a target.
        notes: what a user may want to know, a line each.
        lengths: of texts, those that were chosen for each target where data to choose for was given.
    """

    bundles: tuple[Converted, ...]
    notes: tuple[str, ...] = ()
    lengths: tuple[ChosenLengths, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the gates passed every bundle, so that all were delivered."""
        return all(bundle.ok for bundle in self.bundles)

    def to_json(self) -> list[dict[str, Any]]:
        """What `convert --json` prints: an object for each bundle."""
        return [bundle.to_json() for bundle in self.bundles]

    def tables(self) -> list[RenderableType]:
        """The lengths that were chosen, a row per bundle, then what its gates said."""
        chosen = [each.table() for each in self.lengths]
        return [*chosen, converted_table(self.bundles), *remarks(self.bundles)]

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


def print_converted(result: ConversionResult) -> None:
    """One row per bundle on stdout; what its gates said on stderr."""
    for chosen in result.lengths:
        out.print(chosen.table())
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
