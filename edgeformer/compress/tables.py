"""What a compression came to, as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from edgeformer.compress.compress import Compressed
from edgeformer_runtime.cli.console import out


def print_compressed(compressed: Compressed) -> None:
    """A row for the source and one for each step, on stdout."""
    table = Table("step", "parameters", "zeros in linear layers", "loss", "accuracy", title=str(compressed.path))
    report = compressed.report
    table.add_row("source", *_sizes(report["before"]), "", "")
    for number, step in enumerate(report["steps"], 1):
        results = step["results"]
        name = f"{number} {step['kind']}"
        table.add_row(name, *_sizes(results), _number(results.get("loss")), _percent(results.get("accuracy")))
    out.print(table)


def _sizes(results: dict[str, Any]) -> tuple[str, str]:
    share = results["linear_zeros"] / max(1, results["linear_weights"])
    return f"{results['parameters']:,}", f"{share:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
