"""Teacher, student, pruned student: the recipes that ship, one after the other on CLINC150, and one table of all.

    python -m benchmarks.zoo [--out build/zoo] [--update-docs]

The teacher is MiniLM with a classifier, fine-tuned; the student a narrow MobileBERT that learns from it; the last one
loses 60 % of its linear weights, in part by heads and neurons. Each becomes LiteRT bundles. What an earlier run
finished in the folder is kept, and what it left unfinished goes on. Training sees the training split, choices were made
on the validation split, and the table shows the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeformer.compress.compress import CompressOptions, compress
from edgeformer.convert.convert import convert
from edgeformer.convert.layer_plan import CHECKPOINT_FILE
from edgeformer.convert.options import ConvertOptions
from edgeformer.report.collect import Variant, collect
from edgeformer.report.page import write_page
from edgeformer_runtime.cli.console import err
from edgeformer_runtime.errors import EdgeFormerError, InputError
from tools.code_key import REPOSITORY

ASSETS = Path(os.environ.get("EDGEFORMER_ASSETS", REPOSITORY.parent / "shared" / "assets"))
RESULTS = Path(__file__).parent / "results" / "zoo.json"
DOCS = REPOSITORY / "docs" / "compression.md"
BEGIN, END = "<!-- zoo: begin -->", "<!-- zoo: end -->"
PRECISIONS = ("fp32", "dynamic-int8")
SEQ_LEN = 32
"""No sentence of CLINC150 has more tokens."""


@dataclass(frozen=True)
class Link:
    """One checkpoint of the chain: its name, the recipe, and what it is made from; None: the embedder."""

    name: str
    recipe: str
    source: str | None
    teacher: str | None = None


CHAIN = (
    Link("teacher", "classify-new-labels", None),
    Link("student", "mobilebert-student", "teacher"),
    Link("pruned", "prune-60", "student", teacher="teacher"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the chain; 0, or 2 with a line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=ASSETS / "text/clinc150/data_small.json", help="CLINC150")
    parser.add_argument("--embedder", default=str(ASSETS / "minilm-l6-v2"), help="all-MiniLM-L6-v2: a folder or hub id")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "zoo")
    parser.add_argument("--update-docs", action="store_true", help="write the table into the results and the docs")
    options = parser.parse_args(arguments)
    try:
        return _run(options.data, options.embedder, options.out, options.update_docs)
    except EdgeFormerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(data: Path, embedder: str, out: Path, update: bool) -> int:
    if not data.is_file():
        raise InputError(f"no data at {data}: give CLINC150's data_small.json as --data")
    out.mkdir(parents=True, exist_ok=True)
    for link in CHAIN:
        make(link, data, embedder, out)
    err.print("asking and timing all bundles on the test split")
    report = collect(out, f"{data}:test")
    write_page(report, out / "report.html")
    results = results_of(report.variants, {link.name: report.recipes[link.name] for link in CHAIN})
    table = markdown(results)
    print(table)
    print(f"\nMore in {out / 'report.html'}")
    if update:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        head, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
        DOCS.write_text(f"{head}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    return 0


def make(link: Link, data: Path, embedder: str, out: Path) -> None:
    """A checkpoint and its bundles, unless they are there."""
    folder = out / link.name
    if not (folder / CHECKPOINT_FILE).is_file():
        err.print(f"{link.name}: recipe {link.recipe}")
        begin = time.monotonic()
        compress(
            CompressOptions(
                embedder if link.source is None else str(out / link.source),
                link.recipe,
                f"{data}:train",
                folder,
                teacher=None if link.teacher is None else str(out / link.teacher),
                evaluate=f"{data}:val",
                resume=(out / f".{link.name}.compress").exists(),
            ),
            err,
        )
        err.print(f"{link.name}: {(time.monotonic() - begin) / 60:.1f} minutes")
    bundles = out / f"{link.name}-bundles"
    if not bundles.is_dir():
        err.print(f"{link.name}: bundles")
        scratch = out / f".{link.name}-bundles"
        shutil.rmtree(scratch, ignore_errors=True)
        convert(
            ConvertOptions(
                str(folder),
                scratch,
                precisions=PRECISIONS,
                seq_lens=(SEQ_LEN,),
                calibration=Path(f"{data}:train"),
            )
        )
        scratch.rename(bundles)


def results_of(variants: tuple[Variant, ...], recipes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the results' file holds: a row per bundle in the order of the chain, each beside the teacher at fp32."""
    bundles = {each.name: each for each in variants if each.kind == "bundle"}
    rows = []
    for link in CHAIN:
        for precision in PRECISIONS:
            bundle = bundles[f"{link.name}-bundles/{link.name}.litert.{precision}"]
            rows.append({"model": link.name, **_figures(bundle)})
    teacher = rows[0]
    for row in rows:
        row["accuracy_of_teacher"] = row["accuracy"] / teacher["accuracy"]
        row["latency_of_teacher"] = row["latency_ms"] / teacher["latency_ms"]
    return {"machine": platform.machine(), "seq_len": SEQ_LEN, "rows": rows, "checkpoints": _checkpoints(recipes)}


def _figures(bundle: Variant) -> dict[str, Any]:
    known = asdict(bundle)
    return {"precision": known["precision"], "accuracy": known["value"]} | {
        key: known[key] for key in ("size_bytes", "latency_ms", "agreement")
    }


def _checkpoints(recipes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By name: parameters, linear weights, the zeros among those, and the accuracy on the validation split."""
    keys = ("parameters", "linear_weights", "linear_zeros", "accuracy")
    last = {name: recipe["steps"][-1]["results"] for name, recipe in recipes.items()}
    return {name: {key: results[key] for key in keys} for name, results in last.items()}


def markdown(results: dict[str, Any]) -> str:
    """The table of the docs."""
    lines = [
        "| | precision | accuracy | of the teacher's | bundle | latency | of the teacher's |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['model']} | {row['precision']} | {row['accuracy']:.2%} | {row['accuracy_of_teacher']:.1%}"
        f" | {row['size_bytes'] / 1e6:.2f} MB | {row['latency_ms']:.2f} ms | {row['latency_of_teacher']:.3f} |"
        for row in results["rows"]
    ]
    known = results["checkpoints"]
    whole, pruned = known["student"]["linear_weights"], known["pruned"]
    left, zeros = pruned["linear_weights"], pruned["linear_zeros"]
    validation = ", ".join(f"{name} {each['accuracy']:.2%}" for name, each in known.items())
    lines += [
        "",
        f"Of the student's {whole:,} linear weights the pruned one lost {1 - (left - zeros) / whole:.1%}:"
        f" {1 - left / whole:.1%} with heads and neurons, and {zeros / left:.1%} of what is left are zeros."
        f" Validation accuracy of the checkpoints: {validation}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
