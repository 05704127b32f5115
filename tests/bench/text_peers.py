"""Measures text bundles on every target and precision, and peers on the same weights, into results/text.json.

    python -m tests.bench.text_peers [--update-readme]

Two models: MobileBERT as published (24 layers, random weights: latency and parity do not depend on training) at 128
tokens, and the zoo's intent classifier at 32. All rows of a model come from one run, interleaved, one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from edgeformer.convert import Converted, ConvertOptions, convert, steps_of
from edgeformer.peers import PEERS, peer_contenders
from edgeformer.progress import Steps
from edgeformer.targets import REFERENCE_ENGINES, TARGETS
from edgeformer_runtime.bench import bench, bundle_contender
from edgeformer_runtime.bundle import Bundle
from tests.bench.readme_table import update_readme

RESULTS = Path(__file__).parent / "results" / "text.json"
ROUNDS = 40
PRECISIONS = ("fp32", "fp16", "dynamic-int8")


def save_default_mobilebert(folder: Path) -> Path:
    """MobileBERT's default config with three labels and no tokenizer, in the public format."""
    torch.manual_seed(0)
    config = transformers.MobileBertConfig(num_labels=3)
    transformers.MobileBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def measure(title: str, source: str, seq_len: int, folder: Path) -> dict[str, Any]:
    """Convert a model to everything, then time what runs here beside the peers."""
    options = ConvertOptions(
        source=source, out=folder, targets=tuple(TARGETS), precisions=PRECISIONS, seq_lens=(seq_len,), name="model"
    )
    with Steps(steps_of(options)) as steps:
        bundles = convert(options, steps)
    runnable = [row for row in bundles if row.ok and row.target not in REFERENCE_ENGINES]
    with tempfile.TemporaryDirectory() as work, Bundle.open(runnable[0].path) as first:
        contenders = [bundle_contender(row.path) for row in runnable]
        contenders += peer_contenders(PEERS, first, source, Path(work))
        rows = bench(contenders, threads=1, rounds=ROUNDS)
    return {
        "title": title,
        "seq_len": seq_len,
        "bundles": [_without_path(row) for row in bundles],
        "rows": [row.to_json() for row in rows],
    }


def main() -> None:
    """Measure, write the JSON, and put the table into the README if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update-readme", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mobilebert = save_default_mobilebert(folder / "mobilebert-24-layers")
        results = {
            "machine": f"{platform.machine()}, {platform.system()}, one thread",
            "models": [
                measure("MobileBERT, 24 layers, 128 tokens", str(mobilebert), 128, folder / "full"),
                measure("Intent classifier of the zoo, 32 tokens", "clinc150-mobilebert", 32, folder / "zoo"),
            ],
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.update_readme:
        update_readme()


def _without_path(row: Converted) -> dict[str, Any]:
    """The row, less the temporary path that it was written to."""
    return {key: value for key, value in row.to_json().items() if key != "path"}


if __name__ == "__main__":
    main()
