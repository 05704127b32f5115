"""Renders the README's table of results from the benchmarks' JSON: `python -m benchmarks.readme_table`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import footprint_results, speech_results
from benchmarks.intervals import span

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def render() -> str:
    """The Markdown of every model's table."""
    found = [RESULTS / name for name in ("text.json", "vision.json")]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]
    parts = [f"Measured by `make bench` ({results[0]['machine']}); ratios are against LiteRT fp32 in the same run."]
    if any(row.get("ratio_interval") for each in results for model in each["models"] for row in model["rows"]):
        parts[0] += " Behind a ratio stands where another run finds it, with 99 % (`python -m benchmarks.check`)."
    parts += [_model(model) for each in results for model in each["models"]]
    speech = RESULTS / "speech.json"
    if speech.exists():
        parts.append(speech_results.markdown(json.loads(speech.read_text(encoding="utf-8"))))
    footprint = RESULTS / "footprint.json"
    if footprint.exists():
        parts.append(footprint_results.markdown(json.loads(footprint.read_text(encoding="utf-8"))))
    return "\n\n".join(parts)


def update_readme() -> None:
    """Replace what stands between the README's markers."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    README.write_text(f"{head}{BEGIN}\n{render()}\n{END}{tail}", encoding="utf-8")


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
    for (engine, precision, name), row in times.items():
        if name in ("onnxruntime", "openvino", "torch"):
            lines.append(_line(f"peer: {engine}", precision, row["size_bytes"], ("", _cosine(row)), row))
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
    ratio = f"{row['ratio_to_first']:.2f}{span(row.get('ratio_interval'))}" if row else ""
    return f"| {name} | {precision} | {size_bytes / 1e6:.1f} MB | {parity[0]} | {parity[1]} | {latency} | {ratio} |"


if __name__ == "__main__":
    update_readme()
