"""Measures text bundles on every target and precision, and peers on the same weights: benchmarks/results/text.json.

    python -m benchmarks.text_peers [--update-docs] [--json FILE]

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

from benchmarks.bundle_measure import measure
from benchmarks.tables import RESULTS, update_docs
from edgeformer.convert.convert import ConvertOptions
from edgeformer.convert.target import TARGETS

RESULT = RESULTS / "text.json"
ROUNDS = 20
PRECISIONS = ("fp32", "fp16", "dynamic-int8")


def save_default_mobilebert(folder: Path) -> Path:
    """MobileBERT's default config with three labels and no tokenizer, in the public format."""
    torch.manual_seed(0)
    config = transformers.MobileBertConfig(num_labels=3)
    transformers.MobileBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def measure_text(title: str, source: str, seq_len: int, folder: Path) -> dict[str, Any]:
    """Convert a text model to everything with one bucket, and measure it."""
    options = ConvertOptions(
        source=source, out=folder, targets=tuple(TARGETS), precisions=PRECISIONS, seq_lens=(seq_len,), name="model"
    )
    found, _ = measure(title, options, ROUNDS)
    return {**found, "seq_len": seq_len}


def main() -> None:
    """Measure, write the JSON, and put the tables into the documents if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--update-docs", action="store_true", help="write the tables of docs/benchmarks.md and the README"
    )
    parser.add_argument("--json", type=Path, default=RESULT, help="where the results go; default: the stored ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mobilebert = save_default_mobilebert(folder / "mobilebert-24-layers")
        results = {
            "machine": f"{platform.machine()}, {platform.system()}, one thread",
            "models": [
                measure_text("MobileBERT, 24 layers, 128 tokens", str(mobilebert), 128, folder / "full"),
                measure_text("Intent classifier of the zoo, 32 tokens", "clinc150-mobilebert", 32, folder / "zoo"),
            ],
        }
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.update_docs:
        update_docs()


if __name__ == "__main__":
    main()
