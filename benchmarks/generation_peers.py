"""Measures SmolLM2-135M beside ONNX Runtime by hand, transformers and llama.cpp: benchmarks/results/generation.json.

    python -m benchmarks.generation_peers [--update-docs] [--bundles FOLDER] [--rounds N] [--peers NAMES]

Prefill and decode in tokens a second of one thread's processor time, resident memory behind the first text, the
perplexity of a held text, and whether the greedy text is transformers'. Every contender has a process of its own; they
take turns. The weights are those of `generation_models`, which needs the package gguf; llama.cpp needs xllamacpp.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import generation_models
from benchmarks.generation_results import terminal_table
from benchmarks.tables import RESULTS, update_docs
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bench.measure import Child, turn_orders
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.console import Steps, err, out
from tests.conftest import ASSETS

WORKER = "benchmarks.generation_worker"
SLOTS = 256
PROMPT_TOKENS, WRITTEN_TOKENS = 96, 32
"""Of a round: the text's beginning, and what is written behind it."""
GREEDY_PROMPT = "The history of the steam engine begins in the first century, when"
GREEDY_TOKENS = 200
WINDOWS = 2
"""Of the held text, each as long as the cache."""
PEERS = ("onnxruntime", "transformers", "llama.cpp")


def held_text() -> str:
    """The questions of Banking77's test set, one after the other."""
    with (ASSETS / "text" / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        return " ".join(row["text"] for row in csv.DictReader(file))


def bundles_in(folder: Path | None, checkpoint: Path, work: Path) -> list[Path]:
    """The bundles of a folder, or new ones."""
    if folder is not None:
        return sorted(path for path in folder.iterdir() if (path / "manifest.json").is_file())
    options = ConvertOptions(str(checkpoint), work, ("litert", "onnx"), ("fp32", "dynamic-int8"), (SLOTS,))
    with Steps() as steps:
        return [row.path for row in convert(options, steps.at).bundles if row.ok]


def contenders(bundles: Sequence[Path], checkpoint: Path, peers: Sequence[str]) -> list[Contender]:
    """The bundles, and the peers: the last that is transformers is what texts are compared with."""
    found = []
    for path in bundles:
        with Bundle.open(path) as bundle:
            target, precision, size = bundle.manifest.target, bundle.manifest.precision, bundle.model_size_bytes
        runners = {"BundleWriter": f"EdgeFormer {target}"}
        if target == "onnx" and "onnxruntime" in peers:
            runners["OnnxWriter"] = "onnxruntime by hand"
        found += [
            Contender(name, target, precision, f"{WORKER}:{factory}", {"path": str(path)}, size)
            for factory, name in runners.items()
        ]
    if "llama.cpp" in peers:
        files = {"q8_0": generation_models.ggml("q8_0"), "q4_1": generation_models.published()}
        for precision, file in files.items():
            arguments = {"file": str(file)}
            size = file.stat().st_size
            found.append(Contender("llama.cpp", "llama.cpp", precision, f"{WORKER}:LlamaWriter", arguments, size))
    if "transformers" in peers:
        arguments, size = {"folder": str(checkpoint)}, (checkpoint / "model.safetensors").stat().st_size
        found.append(Contender("transformers", "torch", "fp32", f"{WORKER}:TorchWriter", arguments, size))
    return found


def measure(entries: Sequence[Contender], texts: dict[str, list[int]], rounds: int) -> list[dict[str, Any]]:
    """A row for each contender."""
    with ExitStack() as stack:
        children = []
        for contender in entries:
            err.print(f"loading {contender.name} {contender.precision}")
            children.append(stack.enter_context(Child(contender, 1, WORKER)))
            children[-1].load()
        rows = [_judged(*each, texts) for each in zip(entries, children, strict=True)]
        prefills: list[list[float]] = [[] for _ in entries]
        decodes: list[list[float]] = [[] for _ in entries]
        prompt = texts["held"][:PROMPT_TOKENS]
        for number, order in enumerate(turn_orders(len(entries), rounds)):
            err.print(f"round {number + 1} of {rounds}")
            for index in order:
                first, whole = (
                    children[index].ask({"write": {"prompt": prompt, "count": count}})
                    for count in (1, 1 + WRITTEN_TOKENS)
                )
                prefills[index].append(first["cpu_s"] / len(prompt))
                decodes[index].append((whole["cpu_s"] - first["cpu_s"]) / (len(whole["tokens"]) - 1))
        peaks = [child.finish() for child in children]
    reference = next((row["greedy"] for row in reversed(rows) if row["name"] == "transformers"), None)
    for index, row in enumerate(rows):
        greedy = row.pop("greedy")
        row["same_tokens"] = _agreeing(greedy, reference) if any(greedy) and reference else None
        row["prefill_tokens_per_s"] = 1 / statistics.median(prefills[index])
        row["decode_tokens_per_s"] = 1 / statistics.median(decodes[index])
        row["prefill_ratio"] = _ratio(prefills[index], prefills[0])
        row["decode_ratio"] = _ratio(decodes[index], decodes[0])
        row["peak_bytes"] = peaks[index]
    return rows


def _judged(contender: Contender, child: Child, texts: dict[str, list[int]]) -> dict[str, Any]:
    """What is asked once: the greedy text, what is resident behind it, and the held text's perplexity."""
    err.print(f"asking {contender.name} {contender.precision}")
    short = child.ask({"write": {"prompt": texts["greedy"], "count": 4}})
    greedy = child.ask({"write": {"prompt": texts["greedy"], "count": GREEDY_TOKENS}})["tokens"]
    found: list[float] = []
    for start in range(0, WINDOWS * SLOTS, SLOTS):
        answer = child.ask({"surprises": {"tokens": texts["held"][start : start + SLOTS]}})["surprises"]
        found += answer or []
    return {
        "name": contender.name,
        "precision": contender.precision,
        "size_bytes": contender.size_bytes,
        "resident_bytes": short["resident_bytes"],
        "perplexity": math.exp(-statistics.fmean(found)) if found else None,
        "greedy": greedy,
    }


def _agreeing(found: Sequence[int], reference: Sequence[int]) -> int:
    """Up to the first token that differs."""
    pairs = zip(found, reference, strict=False)
    return next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), min(len(found), len(reference)))


def _ratio(times: Sequence[float], first: Sequence[float]) -> float:
    """Of speeds, round by round, to the first contender's."""
    return statistics.median(other / own for own, other in zip(times, first, strict=True))


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, help="measure this folder's bundles and convert none")
    parser.add_argument("--peers", default=",".join(PEERS), help="with commas; empty for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--update-docs", action="store_true", help="write the stored results, and the pages' tables")
    options = parser.parse_args()
    checkpoint = generation_models.checkpoint()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    texts = {"held": tokenizer.encode(held_text()[:20_000]).ids, "greedy": tokenizer.encode(GREEDY_PROMPT).ids}
    with tempfile.TemporaryDirectory() as work:
        found = bundles_in(options.bundles, checkpoint, Path(work))
        rows = measure(contenders(found, checkpoint, options.peers.split(",")), texts, options.rounds)
    results = {
        "machine": f"{platform.machine()}, {platform.system()}, one thread",
        "model": generation_models.NAME,
        "rounds": options.rounds,
        "prompt_tokens": PROMPT_TOKENS,
        "written_tokens": WRITTEN_TOKENS,
        "greedy_tokens": GREEDY_TOKENS,
        "perplexity_tokens": WINDOWS * (SLOTS - 1),
        "rows": rows,
    }
    out.print(terminal_table(results))
    target = RESULTS / "generation.json" if options.update_docs else options.json
    if target is not None:
        target.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.update_docs:
        update_docs()


if __name__ == "__main__":
    main()
