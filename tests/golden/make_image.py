"""Writes image.json and image.safetensors: images resized by Pillow, cropped, and the table of their normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL
from PIL import Image

from edgeformer_runtime.bundle.strict_json import to_data
from edgeformer_runtime.tasks.vision import ImagePreprocessing
from tests.golden.golden_files import document, tensors

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALVES = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.25, 0.125)}


def files() -> dict[str, bytes]:
    """The golden files by name."""
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for index, (name, image, spec) in enumerate(_cases()):
        cases.append({"name": name, "preprocessing": to_data(spec)})
        arrays |= {
            f"{index}/image": image,
            f"{index}/levels": _levels(image, spec).transpose(2, 0, 1),
            f"{index}/table": _table(spec),
        }
    return {
        "image.json": document(f"pillow {PIL.__version__}", cases),
        "image.safetensors": tensors(arrays),
    }


def _levels(image: np.ndarray, spec: ImagePreprocessing) -> np.ndarray:
    """(height, width, 3) uint8: what torchvision's Resize and CenterCrop make of an image (H, W, 3)."""
    side = spec.resize_short_side
    height, width = image.shape[:2]
    if spec.crop == "squash":
        size = (side, side)
    else:
        size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    resized = Image.fromarray(image).resize(size, FILTERS[spec.interpolation])
    cropped = size[0] - spec.width, size[1] - spec.height
    # transformers rounds halves down, torchvision to the even number.
    left, top = (each // 2 if spec.crop == "center-floor" else round(each / 2) for each in cropped)
    return np.asarray(resized)[top : top + spec.height, left : left + spec.width]


def _table(spec: ImagePreprocessing) -> np.ndarray:
    """(3, 256) float32: torchvision's ToTensor and Normalize of each level of each channel."""
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    return np.stack([(levels - np.float32(m)) / np.float32(s) for m, s in zip(spec.mean, spec.std, strict=True)])


def _cases() -> Iterator[tuple[str, np.ndarray, ImagePreprocessing]]:
    generator = np.random.default_rng(3)

    def noise(height: int, width: int) -> np.ndarray:
        return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)

    def edges(height: int, width: int) -> np.ndarray:
        """Black and white, where a cubic filter overshoots."""
        y, x = np.mgrid[0:height, 0:width]
        return np.stack([(x // 3 + y // 5) % 2 * 255, (x > y) * 255, x * 255 // width], axis=2).astype(np.uint8)

    def spec(height: int, width: int, side: int, filter: str = "bicubic", crop: str = "center", **levels: Any):
        return ImagePreprocessing(height, width, side, filter, crop, **(levels or IMAGENET))

    for filter in FILTERS:
        yield f"portrait, {filter}", noise(60, 40), spec(16, 24, 26, filter)
        yield f"landscape, {filter}", edges(50, 90), spec(24, 24, 27, filter, **HALVES)
        yield f"enlarged, {filter}", edges(7, 5), spec(32, 32, 32, filter)
        yield f"squashed, {filter}", noise(33, 71), spec(32, 30, 32, filter, "squash")
        yield f"far smaller, {filter}", noise(150, 101), spec(8, 8, 9, filter)
        yield f"one pixel, {filter}", noise(1, 1), spec(5, 5, 6, filter)
        yield f"one column, {filter}", noise(40, 1), spec(8, 8, 8, filter)
        yield f"one row, {filter}", noise(1, 40), spec(8, 8, 8, filter)
    yield "as it is", noise(20, 30), spec(20, 20, 20)
    yield "one side as it is", noise(20, 41), spec(20, 20, 20, "bicubic", "squash")
    yield "halves to even, 1.5", noise(27, 27), spec(24, 24, 27)
    yield "halves to even, 0.5", noise(25, 25), spec(24, 24, 25)
    yield "halves down, 1.5", noise(40, 27), spec(24, 24, 27, crop="center-floor")
