"""What a search for a budget came to, as a table."""

from __future__ import annotations

from rich.table import Table

from edgeformer.compress.budget.budget import METRICS, describe
from edgeformer.compress.budget.chain import Chain
from edgeformer.compress.budget.search import format_counts
from edgeformer_runtime.cli.console import out


def print_chain(chain: Chain) -> None:
    """A row for each bundle that was made, the chosen one marked, on stdout."""
    points = chain.found.points
    known = [name for name in METRICS if any(name in point.values for point in points)]
    title = f"{chain.path or 'not met'}, asked {chain.report['examples']} examples"
    table = Table("stage", "layers by format", *known, "of fp32's latency", "", title=title)
    for point in points:
        formats = format_counts(point.plan)
        ratio = (
            f"{point.values['latency'] / point.fp32_latency_ms:.2f}"
            if point.fp32_latency_ms and "latency" in point.values
            else ""
        )
        values = [describe(name, point.values[name]) if name in point.values else "" for name in known]
        mark = "chosen" if point is chain.found.best and chain.found.met else point.refused or ""
        table.add_row(point.stage, formats, *values, ratio, mark)
    out.print(table)
