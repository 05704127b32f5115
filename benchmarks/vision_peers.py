"""Measures TinyViT-5M at 224 pixels on every target that runs here and every precision, and peers on the same weights.

    python -m benchmarks.vision_peers [--update-docs] [--json FILE]

The weights are the seeded ones of the reference assets (EDGEFORMER_ASSETS), which are harder to quantize than trained
ones. int8 is calibrated on half of the assets' photographs and 48 small images; each row's cosines to torch at fp32 are
over the other photographs and eight other small images. Latencies come from one run, interleaved, one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundle_measure import measure
from benchmarks.tables import RESULTS, update_docs
from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.convert import ConvertOptions
from edgeformer.convert.target import TARGETS
from edgeformer.models.family import ProgramOptions
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import Tensor, open_engine
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.verify.verify import compare
from tests.conftest import ASSETS

RESULT = RESULTS / "vision.json"
ROUNDS = 20
PRECISIONS = ("fp32", "fp16", "dynamic-int8", "static-int8")
HERE = tuple(target for target in TARGETS if TARGETS[target].format.reference_engine is None)
# Each held-out image costs loading every peer once more.
SMALL_IMAGES = {"train": 48, "test": 8}
MODEL = "tiny_vit_5m_224.safetensors"
FAITHFUL = 0.999
"""The mean cosine from which on a row counts as the model at its best precision."""


def split_images(assets: Path, folder: Path) -> tuple[Path, list[Path]]:
    """A folder of images to calibrate with, and the images to compare on; they share none."""
    calibration, held_out = folder / "calibration", folder / "held-out"
    photos = sorted((assets / "images" / "open").iterdir())
    with zipfile.ZipFile(assets / "cifar10" / "cifar10_subset.zip") as archive:
        for part, place, chosen in (("train", calibration, photos[::2]), ("test", held_out, photos[1::2])):
            place.mkdir()
            for photo in chosen:
                shutil.copy(photo, place)
            names = sorted(name for name in archive.namelist() if name.startswith(part) and name.endswith(".jpg"))
            count = SMALL_IMAGES[part]
            for name in names[:: len(names) // count][:count]:
                (place / name.replace("/", "-")).write_bytes(archive.read(name))
    return calibration, sorted(held_out.iterdir())


def cosines(
    contenders: Sequence[Contender], first: Bundle, model: Path, images: Sequence[Path], folder: Path
) -> dict[str, Any]:
    """For each contender's row the mean and the smallest cosine to the model in torch at fp32, over the images."""
    checkpoint = open_checkpoint(str(model))
    module, _ = load_module(checkpoint, KERNELS["fused"])
    source = TorchEngine(checkpoint.family.programs(module, checkpoint.config, ProgramOptions()))
    pipeline = open_pipeline(first, source)
    inputs = [pipeline.prepare(path).inputs for path in images]
    expected = [source.run("image", each)["logits"] for each in inputs]
    found = {}
    for contender in contenders:
        outputs = _outputs(contender, inputs, folder)
        values = [compare(a, b, 1.0).cosine for a, b in zip(outputs, expected, strict=True)]
        known = [value for value in values if value is not None]
        assert len(known) == len(inputs), f"{contender.name} gives no comparable logits"
        found[_key(contender)] = {"mean": statistics.mean(known), "min": min(known), "n": len(known)}
    return found


def _outputs(contender: Contender, inputs: Sequence[dict[str, Tensor]], folder: Path) -> list[Tensor]:
    """The contender's logits (1, L) for each input."""
    if "path" in contender.arguments:
        with Bundle.open(contender.arguments["path"]) as bundle:
            engine = open_engine(bundle, threads=1)
            logits = [engine.run("image", each)["logits"] for each in inputs]
            engine.close()
            return logits
    file = folder / "inputs.npz"
    outputs = []
    for each in inputs:
        np.savez(file, **each)  # type: ignore[arg-type]
        run = load_attribute(contender.factory)(**contender.arguments | {"inputs": str(file)}, threads=1)
        result = run()
        values = list(result.values()) if hasattr(result, "values") else result
        outputs.append(np.asarray(values[0]))
    return outputs


def best(rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> dict[str, Any]:
    """The fastest faithful LiteRT row against the fastest faithful peer."""
    faithful = [row for row in rows if found[_row_key(row)]["mean"] >= FAITHFUL]
    ours = [row for row in faithful if row["engine"] == "litert"]
    peers = [row for row in faithful if row["name"] == row["engine"]]
    mine, theirs = (min(each, key=lambda row: row["latency_ms"]["median"]) for each in (ours, peers))
    return {
        "litert": mine["precision"],
        "peer": f"{theirs['engine']} {theirs['precision']}",
        "ratio": round(mine["latency_ms"]["median"] / theirs["latency_ms"]["median"], 4),
        "least_mean_cosine": FAITHFUL,
    }


def _key(contender: Contender) -> str:
    return f"{contender.name} {contender.precision}"


def _row_key(row: dict[str, Any]) -> str:
    return f"{row['name']} {row['precision']}"


def main() -> None:
    """Measure, write the JSON, and put the tables into the documents if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--update-docs", action="store_true", help="write the tables of docs/benchmarks.md and the README"
    )
    parser.add_argument("--json", type=Path, default=RESULT, help="where the results go; default: the stored ones")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--target", action="append", choices=HERE, help="default: all that run here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model_file = ASSETS / "golden" / MODEL
        calibration, images = split_images(ASSETS, folder)
        options = ConvertOptions(
            source=str(model_file),
            out=folder / "bundles",
            targets=tuple(arguments.target or HERE),
            precisions=PRECISIONS,
            name="model",
            calibration=calibration,
        )
        model, found = measure(
            "TinyViT-5M, 224 pixels",
            options,
            arguments.rounds,
            lambda contenders, first: cosines(contenders, first, model_file, images, folder),
        )
    for row in model["rows"]:
        row["held_out_cosine"] = found[_row_key(row)]
    results = {
        "machine": f"{platform.machine()}, {platform.system()}, one thread",
        "models": [{**model, "best": best(model["rows"], found)}],
    }
    arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if arguments.update_docs:
        update_docs()


if __name__ == "__main__":
    main()
