"""The rows of the generation benchmark as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

HEADERS = ("", "precision", "size", "resident", "prefill", "ratio", "decode", "ratio", "perplexity", "greedy text")


def markdown(results: dict[str, Any]) -> str:
    """The table of docs/benchmarks.md."""
    first = results["rows"][0]
    lines = [
        f"**{results['model']}, a prompt of {results['prompt_tokens']} tokens and {results['written_tokens']} more**",
        "",
        f"Tokens for each second of processor time, one thread, medians of {results['rounds']} interleaved rounds;"
        f" ratios are speeds, to those of {first['name']} {first['precision']}. Perplexity is that of"
        f" {results['perplexity_tokens']} tokens of Banking77's questions; the greedy text agrees with transformers' up"
        f" to the token that is named, of {results['greedy_tokens']}.",
        "",
        f"| {' | '.join(HEADERS)} |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in _cells(results))])


def terminal_table(results: dict[str, Any]) -> Table:
    """The same for a terminal."""
    table = Table(*HEADERS, title=results["model"])
    for cells in _cells(results):
        table.add_row(*cells)
    return table


def _cells(results: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in results["rows"]:
        perplexity, same = row["perplexity"], row["same_tokens"]
        yield (
            row["name"],
            row["precision"],
            f"{row['size_bytes'] / 1e6:.1f} MB",
            f"{row['resident_bytes'] / (1 << 20):.0f} MiB",
            f"{row['prefill_tokens_per_s']:.0f}/s",
            f"{row['prefill_ratio']:.2f}",
            f"{row['decode_tokens_per_s']:.1f}/s",
            f"{row['decode_ratio']:.2f}",
            "" if perplexity is None else f"{perplexity:.3f}",
            "" if same is None else "all" if same == results["greedy_tokens"] else str(same),
        )
