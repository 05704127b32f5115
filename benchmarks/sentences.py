"""Measures MiniLM on sentences as people write them, from text to embedding: benchmarks/results/sentences.json.

    python -m benchmarks.sentences [--update-docs] [--json FILE] [--repeats N]

CLINC150's test questions (12 tokens) and SST-2's sentences (26), from the reference assets. Bundles have the lengths
that `convert` gives them by default; the peers run each text at its own length. Then `MANY` questions in a list, beside
ONNX Runtime by hand over sorted batches. One run, interleaved, one thread; times are the processor's.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import many
from benchmarks.bundle_measure import REPEATS, repeated, without_path
from benchmarks.tables import RESULTS, update_docs
from edgeformer.bench.data import PEERS, bundle_over, peer_programs, peers_over, save_texts
from edgeformer.checkpoints.source_index import open_source
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.data.labelled import spread
from edgeformer_runtime.bench.contender import Cell, Contender
from edgeformer_runtime.bench.measure import measure_cells
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT
from edgeformer_runtime.pipelines.results import EmbeddingResult
from edgeformer_runtime.registry import load_attribute
from tests.conftest import ASSETS

RESULT = RESULTS / "sentences.json"
ROUNDS = 12
JUDGED = 40
"""Texts whose embeddings are compared with torch's."""


def questions(text: Path) -> list[str]:
    """CLINC150's test set."""
    rows = json.loads((text / "clinc150" / "data_small.json").read_text(encoding="utf-8"))["test"]
    return [row[0] for row in rows]


def reviews(text: Path) -> list[str]:
    """SST-2's development set."""
    lines = (text / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines]


SETS = {"MiniLM-L6, questions of CLINC150": questions, "MiniLM-L6, sentences of SST-2": reviews}


MANY = 1000
"""Texts in a list."""
LIST = "MiniLM-L6, 1,000 questions of CLINC150 in a list"
MANY_ROUNDS = 2


def cosines(contenders: Sequence[Contender]) -> list[float]:
    """Of each contender's embeddings with those of the last, torch's, in the mean over `JUDGED` texts."""
    runs = [load_attribute(each.factory)(**each.arguments, threads=1) for each in contenders]
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(JUDGED):
        vectors = [_embedding(run()) for run in runs]
        for place, vector in enumerate(vectors):
            lengths = np.linalg.norm(vector) * np.linalg.norm(vectors[-1])
            found[place].append(float(vector @ vectors[-1] / lengths))
    return [float(np.mean(each)) for each in found]


def _embedding(answer: Any) -> np.ndarray:
    vector = answer.vector if isinstance(answer, EmbeddingResult) else answer[0]
    return np.asarray(vector, np.float64).ravel()


def measure(title: str, texts: Sequence[str], bundles: Sequence[Path], folder: Path, repeats: int) -> dict[str, Any]:
    """One set of texts; the first bundle is what ratios refer to."""
    data, inputs = folder / "texts.txt", folder / "inputs.json"
    data.write_text("\n".join(text.replace("\n", " ") for text in texts) + "\n", encoding="utf-8")
    with Bundle.open(bundles[0]) as first:
        save_texts(first, data, None, ROUNDS, inputs)
        contenders = [bundle_over(path, inputs, NO_REQUIREMENT) for path in bundles]
        contenders += peers_over(PEERS, first, open_source(first.manifest, None), inputs, folder)
    found = cosines(contenders)
    reports = [measure_cells([Cell(tuple(contenders))], ROUNDS) for _ in range(repeats)]
    rows = repeated(reports, of_processor=True)
    for row, cosine in zip(rows, found, strict=True):
        row["held_out_cosine"] = {"mean": cosine}
    return {"title": title, "rows": rows}


def measure_many(
    title: str, texts: Sequence[str], bundles: Sequence[Path], folder: Path, repeats: int
) -> dict[str, Any]:
    """A list of texts, as `measure`; of ONNX Runtime the faster batches, and cosines to the first bundle's."""
    inputs, tokenizer = folder / "inputs.json", folder / "tokenizer.json"
    inputs.write_text(json.dumps(spread(list(texts), MANY)), encoding="utf-8")
    with Bundle.open(bundles[0]) as first:
        checkpoint = open_source(first.manifest, None)
        longest = first.manifest.programs[-1].inputs[0].shape[1]
    tokenizer.write_text(str(checkpoint.tokenizer_json), encoding="utf-8")
    (program,) = peer_programs(checkpoint, longest)
    contenders = [many.bundle_over(path, inputs) for path in bundles]
    contenders += many.peers_over(many.export_batches(program, folder), tokenizer, longest, inputs)
    found = list_cosines(contenders)
    rows = repeated([measure_cells([Cell(tuple(contenders))], MANY_ROUNDS) for _ in range(repeats)], of_processor=True)
    for row, cosine in zip(rows, found, strict=True):
        row["held_out_cosine"] = {"mean": cosine}
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["latency_ms"]["median"]):
        kept.setdefault((row["engine"], row["precision"]), row)
    return {"title": title, "rows": [row for row in rows if row in kept.values()]}


def list_cosines(contenders: Sequence[Contender]) -> list[float]:
    """Of each contender's embeddings with the first's, in the mean over the list."""
    found = []
    for each in contenders:
        answers = load_attribute(each.factory)(**each.arguments, threads=1)()
        vectors = np.stack(
            [_embedding(answer if isinstance(answer, EmbeddingResult) else [answer]) for answer in answers]
        )
        found.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return [float((vectors * found[0]).sum(axis=1).mean()) for vectors in found]


def main() -> None:
    """Measure, write the JSON, and put the tables into the documents if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update-docs", action="store_true", help="write the tables of docs/benchmarks.md and README")
    parser.add_argument("--json", type=Path, default=RESULT, help="where the results go; default: the stored ones")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="how often all processes are started anew")
    arguments = parser.parse_args()
    place = ASSETS
    with tempfile.TemporaryDirectory() as name:
        options = ConvertOptions(
            source=str(place / "minilm-l6-v2"),
            out=Path(name) / "dist",
            targets=("litert", "onnx"),
            precisions=("fp32", "dynamic-int8"),
            name="model",
        )
        bundles = convert(options)
        models = []
        for title, texts in SETS.items():
            folder = Path(name) / str(len(models))
            folder.mkdir()
            found = measure(title, texts(place / "text"), [row.path for row in bundles], folder, arguments.repeats)
            models.append({**found, "bundles": [without_path(row) for row in bundles]})
        folder = Path(name) / "many"
        folder.mkdir()
        paths = [row.path for row in bundles]
        found = measure_many(LIST, questions(place / "text"), paths, folder, arguments.repeats)
        models.append({**found, "bundles": [without_path(row) for row in bundles]})
    results = {"machine": f"{platform.machine()}, {platform.system()}, one thread", "models": models}
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.update_docs:
        update_docs()


if __name__ == "__main__":
    main()
