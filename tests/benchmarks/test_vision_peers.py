"""The vision benchmark compares like with like, on images that calibration did not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.vision_peers import SMALL_IMAGES, best, split_images


def row(name: str, engine: str, precision: str, median: float) -> dict[str, Any]:
    return {"name": name, "engine": engine, "precision": precision, "latency_ms": {"median": median}}


def test_only_faithful_rows_are_compared() -> None:
    rows = [
        row("model.litert.fp32", "litert", "fp32", 30.0),
        row("model.litert.dynamic-int8", "litert", "dynamic-int8", 20.0),
        row("model.litert.static-int8", "litert", "static-int8", 10.0),
        row("model.onnx.fp32", "onnx", "fp32", 5.0),
        row("openvino", "openvino", "fp32", 40.0),
        row("openvino", "openvino", "bf16", 25.0),
        row("onnxruntime", "onnxruntime", "dynamic-int8", 15.0),
    ]
    means = [1.0, 0.9993, 0.998, 1.0, 1.0, 0.9991, 0.99]
    found = {f"{each['name']} {each['precision']}": {"mean": mean} for each, mean in zip(rows, means, strict=True)}
    # Our own ONNX bundle is neither LiteRT nor a peer.
    assert best(rows, found) == {
        "litert": "dynamic-int8",
        "peer": "openvino bf16",
        "ratio": 0.8,
        "least_mean_cosine": 0.999,
    }


def test_no_image_is_calibrated_with_and_compared_on(assets: Path, tmp_path: Path) -> None:
    calibration, held_out = split_images(assets, tmp_path)
    calibrated = {path.read_bytes() for path in calibration.iterdir()}
    compared = {path.read_bytes() for path in held_out}
    assert len(calibrated) == SMALL_IMAGES["train"] + 3
    assert len(compared) == SMALL_IMAGES["test"] + 3
    assert not calibrated & compared
