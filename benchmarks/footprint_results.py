"""The tables of the footprint benchmark in docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

from benchmarks.intervals import span

_TASKS = {"text": "MobileBERT", "image": "TinyViT"}


def markdown(document: dict[str, Any]) -> str:
    """Two tables: what is installed and imported, and cold starts with the zoo's models."""
    bare = document["bare"]
    lines = [
        "**Footprint**",
        "",
        f"Each in an environment of its own, {document['machine']}; medians of {document['rounds']} interleaved rounds."
        f" `pip install edgeformer-runtime` alone brings {bare['packages']} packages, of whose"
        f" {_megabytes(bare['bytes'])} {_megabytes(bare['own_bytes'])} are neither numpy's nor the engine's.",
        "",
        "| | packages | installed | import |",
        "|---|---:|---:|---:|",
    ]
    for each in document["contenders"]:
        lines.append(
            f"| {each['name']} | {each['packages']} | {_megabytes(each['bytes'])} | {each['import_s'] * 1000:.0f} ms |"
        )
    lines += [
        "",
        "| zoo model | | precision | first answer | ratio | memory, loaded | at most |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for task, shown in _TASKS.items():
        for each in document["contenders"]:
            for cold in (cold for cold in each["cold"] if cold["task"] == task):
                ratio = f"{cold['ratio']:.2f}{span(cold['ratio_interval'])}"
                memory = f"{_mebibytes(cold['loaded_bytes'])} | {_mebibytes(cold['peak_bytes'])}"
                first = f"{cold['first_answer_s'] * 1000:.0f} ms"
                lines.append(f"| {shown} | {each['name']} | {cold['precision']} | {first} | {ratio} | {memory} |")
    lines += [
        "",
        "The first answer is counted from the start of the process, with the files in the page cache;"
        f" its ratio is against {document['contenders'][0]['name']} with the same model.",
    ]
    return "\n".join(lines)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"
