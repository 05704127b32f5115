"""Writes the tables of docs/benchmarks.md, and ten rows of them into the README: `python -m benchmarks.tables`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import footprint_results, generation_results, speech_results
from benchmarks.intervals import span

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE, README = REPOSITORY / "docs" / "benchmarks.md", REPOSITORY / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

HIGHLIGHTS = (
    ("sentences", "MiniLM-L6, questions of CLINC150", "EdgeFormer litert", "dynamic-int8"),
    ("sentences", "MiniLM-L6, questions of CLINC150", "onnxruntime", "dynamic-int8"),
    ("sentences", "MiniLM-L6, questions of CLINC150", "onnxruntime", "fp32"),
    ("sentences", "MiniLM-L6, sentences of SST-2", "EdgeFormer litert", "dynamic-int8"),
    ("sentences", "MiniLM-L6, sentences of SST-2", "onnxruntime", "fp32"),
    ("sentences", "MiniLM-L6, 1,000 questions of CLINC150 in a list", "EdgeFormer litert", "dynamic-int8"),
    ("sentences", "MiniLM-L6, 1,000 questions of CLINC150 in a list", "onnxruntime", "dynamic-int8"),
    ("sentences", "MiniLM-L6, 1,000 questions of CLINC150 in a list", "onnxruntime", "fp32"),
    ("speech", "whisper-tiny.en, 11 s", "EdgeFormer litert", "dynamic-int8"),
    ("speech", "whisper-tiny.en, 11 s", "whisper.cpp", "q8_0"),
)
"""The README's rows: results file, model, who runs it, precision. Of each model the rows have one reference."""


def render_page() -> str:
    """The Markdown of every model's table."""
    results = [_results(name) for name in ("sentences", "text", "vision") if (RESULTS / f"{name}.json").exists()]
    parts = [f"Measured by `make bench` ({results[0]['machine']}); ratios are against LiteRT fp32 in the same run."]
    if any(row.get("ratio_interval") for each in results for model in each["models"] for row in model["rows"]):
        parts[0] += " Behind a ratio stands where another run finds it, with 99 % (`python -m benchmarks.check`)."
    parts += [_model(model) for each in results for model in each["models"]]
    if (RESULTS / "speech.json").exists():
        parts.append(speech_results.markdown(_results("speech")))
    if (RESULTS / "generation.json").exists():
        parts.append(generation_results.markdown(_results("generation")))
    if (RESULTS / "footprint.json").exists():
        parts.append(footprint_results.markdown(_results("footprint")))
    return "\n\n".join(parts)


def render_highlights() -> str:
    """The README's table: the rows that `HIGHLIGHTS` names.

    Raises:
        KeyError: the results lack one of them.
    """
    lines = ["| model | run by | precision | size | time | of the time of |", "|---|---|---|---:|---:|---|"]
    found = {name: dict(_rows_of(name, _results(name))) for name in dict.fromkeys(row[0] for row in HIGHLIGHTS)}
    for name, model, runner, precision in HIGHLIGHTS:
        size, ratio, reference = found[name][model, runner, precision]
        lines.append(f"| {model} | {runner} | {precision} | {size} | {ratio} | {reference} |")
    return "\n".join(lines)


def update_docs() -> None:
    """Replace what stands between the markers of both documents."""
    for file, rendered in ((PAGE, render_page()), (README, render_highlights())):
        text = file.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        _, tail = rest.split(END)
        file.write_text(f"{head}{BEGIN}\n{rendered}\n{END}{tail}", encoding="utf-8")


def _results(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return value


def _rows_of(name: str, results: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], tuple[str, str, str]]]:
    """Every row of a results file by model, runner and precision: its size, ratio, and what the ratio refers to."""
    if name == "footprint":
        for each in results["contenders"]:
            for cold in (cold for cold in each["cold"] if cold["task"] == "text"):
                key = ("MobileBERT of the zoo, first answer", each["name"], cold["precision"])
                yield key, ("", _ratio(cold, "ratio"), f"{results['contenders'][0]['name']} {cold['precision']}")
    elif name == "speech":
        seconds = results["clips"][results["reference_clip"]]["seconds"]
        for row in results["rows"]:
            key = (f"{results['model']}, {seconds:.0f} s", row["name"], row["precision"])
            yield key, (_size(row), _ratio(row, "reference_clip_ratio"), results["reference"])
    else:
        for model in results["models"]:
            bundles = {f"model.{bundle['target']}.{bundle['precision']}": bundle for bundle in model["bundles"]}
            for row in model["rows"]:
                runner = f"EdgeFormer {row['engine']}" if row["name"] in bundles else row["engine"]
                key = (model["title"], runner, row["precision"])
                size = _size(bundles.get(row["name"], row))
                yield key, (size, _ratio(row, "ratio_to_first"), "EdgeFormer litert fp32")


def _size(row: dict[str, Any]) -> str:
    return f"{row['size_bytes'] / 1e6:.1f} MB"


def _ratio(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}{span(row.get('ratio_interval'))}"


def _model(model: dict[str, Any]) -> str:
    times = {(row["engine"], row["precision"], row["name"]): row for row in model["rows"]}
    bundles = {(row["target"], row["precision"]): row for row in model["bundles"]}
    lines = [
        f"**{model['title']}**",
        "",
        "| | precision | size | max difference | cosine | latency | ratio |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for (target, precision), bundle in bundles.items():
        timed = next((row for key, row in times.items() if key[:2] == (target, precision)), None)
        difference, cosine = _parity(bundle)
        shown = (difference, _cosine(timed or {}) or cosine)
        lines.append(_line(target, precision, bundle["size_bytes"], shown, timed))
    for (_, precision, name), row in times.items():
        if name.partition(",")[0] in ("onnxruntime", "openvino", "torch"):
            lines.append(_line(f"peer: {name}", precision, row["size_bytes"], ("", _cosine(row)), row))
    if "best" in model:
        lines += ["", _best(model["best"])]
    return "\n".join(lines)


def _best(best: dict[str, Any]) -> str:
    """Which of ours stands against which peer, and how."""
    return (
        f"Cosines are means over held-out images. Of what keeps {best['least_mean_cosine']}, LiteRT {best['litert']}"
        f" takes {best['ratio']:.2f} of the time of the fastest peer, {best['peer']}."
    )


def _parity(bundle: dict[str, Any]) -> tuple[str, str]:
    """Of the program's output against the checkpoint's, the worst of the recorded cases."""
    stages = bundle["verification"]["stages"][1:-1]
    worst = max(stages, key=lambda stage: stage["max_abs"])
    return f"{worst['max_abs']:.1e}", f"{worst['cosine']:.5f}"


def _cosine(row: dict[str, Any]) -> str:
    """The mean over images that calibration did not see, where the benchmark has some."""
    return f"{row['held_out_cosine']['mean']:.5f}" if "held_out_cosine" in row else ""


def _line(name: str, precision: str, size_bytes: int, parity: tuple[str, str], row: dict[str, Any] | None) -> str:
    latency = f"{row['latency_ms']['median']:.2f} ms" if row else "not here"
    ratio = _ratio(row, "ratio_to_first") if row else ""
    return f"| {name} | {precision} | {size_bytes / 1e6:.1f} MB | {parity[0]} | {parity[1]} | {latency} | {ratio} |"


if __name__ == "__main__":
    update_docs()
