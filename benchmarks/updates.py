"""What a device downloads for an update: this format's bytes beside those of bsdiff and of zstd --patch-from.

    python -m benchmarks.updates [--update-docs]

It needs the programs bsdiff and zstd. The zoo's intent classifier is trained a little further in float32, which is the
release that a device has. Its updates are a head that is trained anew, all weights after a further epoch at 2e-5, and
another precision of the same weights. Bytes are counted and no time is measured, so another run finds nearly the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import edgeformer as ef
from edgeformer.signing import make_keys, publish, update_bytes
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.site import LINE_BYTES, PublishedBundle, parse_index
from edgeformer_runtime.errors import InputError
from tools.code_key import REPOSITORY

RESULTS = Path(__file__).parent / "results" / "updates.json"
PAGE = REPOSITORY / "docs" / "delivery.md"
BEGIN, END = "<!-- updates: begin -->", "<!-- updates: end -->"
ASSETS = Path(os.environ.get("EDGEFORMER_ASSETS", REPOSITORY.parent / "shared" / "assets"))
ZOO = REPOSITORY / "edgeformer" / "zoo" / "clinc150-mobilebert"
TARGETS, PRECISIONS, SEQ_LEN = ("litert", "onnx"), ("fp32", "dynamic-int8"), 32
BATCH = 32


def train(source: Path, out: Path, steps: int, learning_rate: float, head_only: bool = False) -> Path:
    """Train a checkpoint on CLINC150 and save it in float32; `head_only` trains a new head alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = json.loads((ASSETS / "text" / "clinc150" / "data_small.json").read_text(encoding="utf-8"))["train"]
    if head_only:
        torch.nn.init.normal_(model.classifier.weight, std=0.02)
        torch.nn.init.zeros_(model.classifier.bias)
    parameters = model.classifier.parameters() if head_only else model.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    order = torch.randperm(len(rows)).tolist()
    model.train()
    for step in range(steps):
        batch = [rows[order[(step * BATCH + each) % len(rows)]] for each in range(BATCH)]
        inputs = tokenizer([text for text, _ in batch], padding=True, return_tensors="pt")
        labels = torch.tensor([model.config.label2id[label] for _, label in batch])
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (source / name).exists():
            shutil.copy(source / name, out / name)
    return out


def published(dist: Path, key: Path) -> dict[str, PublishedBundle]:
    """Publish a folder once more; the bundles of its index."""
    site = publish(dist, key).site
    return parse_index((site / "index.signed").read_bytes()[LINE_BYTES:]).bundles


def patches(program: str, pairs: Iterable[tuple[Path | None, Path]], work: Path) -> int:
    """The bytes of patches of bsdiff or zstd for files that changed; a new file is patched from nothing."""
    total, patch, nothing = 0, work / "patch", work / "nothing"
    nothing.write_bytes(b"")
    for old, new in pairs:
        if old is not None and old.read_bytes() == new.read_bytes():
            continue
        command = {
            "bsdiff": ["bsdiff", old or nothing, new, patch],
            "zstd": [
                "zstd",
                "-qq",
                "-f",
                "--single-thread",
                "--ultra",
                "-22",
                "--long=27",
                f"--patch-from={old or nothing}",
                new,
                "-o",
                patch,
            ],
        }[program]
        subprocess.run(command, check=True)
        total += patch.stat().st_size
    return total


def measure(work: Path) -> list[dict[str, Any]]:
    """A row for each update, target and precision."""
    make_keys(work / "key.pem")
    base = train(ZOO, work / "base", 60, 1e-4)
    checkpoints = {
        "retrained head": train(base, work / "head", 60, 2e-3, head_only=True),
        "fine-tune": train(base, work / "tuned", 60, 2e-5),
    }
    made = {"base": work / "dist_base", **{kind: work / f"dist_{path.name}" for kind, path in checkpoints.items()}}
    for kind, folder in made.items():
        source = base if kind == "base" else checkpoints[kind]
        ef.convert(
            source, folder, target=TARGETS, precision=PRECISIONS, seq_len=SEQ_LEN, name="intents", keep_refused=True
        )
    rows = []
    for kind in checkpoints:
        dist, indexes = work / "dist", []
        for folder in (made["base"], made[kind]):
            shutil.rmtree(dist, ignore_errors=True)
            shutil.copytree(folder, dist)
            indexes.append(published(dist, work / "key.pem"))
        before, after = indexes
        for name in sorted(before.keys() & after.keys()):
            rows.append(row(kind, name, before[name], after[name], made["base"] / name, made[kind] / name, work))
        shutil.rmtree(f"{dist}.site")
    shutil.copytree(made["base"], work / "last")
    bundles = published(work / "last", work / "key.pem")
    for target in TARGETS:
        old, new = (f"intents.{target}.{precision}" for precision in PRECISIONS)
        rows.append(
            row("other precision", new, bundles[old], bundles[new], made["base"] / old, made["base"] / new, work)
        )
    return rows


def row(
    kind: str, name: str, old: PublishedBundle, new: PublishedBundle, before: Path, after: Path, work: Path
) -> dict[str, Any]:
    """The bytes of one update by each way. Files are compared by name, and models of two precisions with each other."""
    with Bundle.open(before, allow_refused=True) as first, Bundle.open(after, allow_refused=True) as second:
        pairs = [(first.members().get(each), path) for each, path in second.members().items()]
    return {
        "update": kind,
        "bundle": name,
        "whole_bytes": sum(file.size for file in new.files.values()),
        "ours_bytes": update_bytes(old, new),
        "zstd_bytes": patches("zstd", pairs, work),
        "bsdiff_bytes": patches("bsdiff", pairs, work),
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of docs/delivery.md."""
    lines = [
        "| update | bundle | whole | published deltas | `zstd --patch-from` | bsdiff |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for each in rows:
        ways = (each[f"{way}_bytes"] for way in ("ours", "zstd", "bsdiff"))
        shares = " | ".join(f"{way:,} ({way / each['whole_bytes']:.3f})" for way in ways)
        lines.append(f"| {each['update']} | {each['bundle']} | {each['whole_bytes']:,} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--update-docs", action="store_true", help="write the results and the table of docs/delivery.md"
    )
    arguments = parser.parse_args()
    for program in ("bsdiff", "zstd"):
        if shutil.which(program) is None:
            raise InputError(f"the program {program} is not installed: apt install {program}")
    with tempfile.TemporaryDirectory() as work:
        rows = measure(Path(work))
    print(markdown(rows))
    if arguments.update_docs:
        RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(f"{text[:begin]}\n{markdown(rows)}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
