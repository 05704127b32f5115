"""The last step of an image's preprocessing, 8-bit values to a model's input, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.image_spec import ImagePreprocessing


def normalisation_table(spec: ImagePreprocessing) -> NDArray[np.float32]:
    """(3, 256) float32: what each 8-bit value of each channel becomes. An image has no other values."""
    levels = np.arange(256, dtype=np.uint8).astype(np.float32) / np.float32(255)
    mean, std = np.array(spec.mean, dtype=np.float32), np.array(spec.std, dtype=np.float32)
    table: NDArray[np.float32] = (levels[None] - mean[:, None]) / std[:, None]
    return table


def to_input(levels: NDArray[np.uint8], spec: ImagePreprocessing) -> NDArray[np.float32]:
    """8-bit RGB values (1, 3, H, W) to normalised pixels of the same shape."""
    return np.stack([row[plane] for row, plane in zip(normalisation_table(spec), levels[0], strict=True)])[None]


def to_levels(pixels: NDArray[np.float32], spec: ImagePreprocessing) -> NDArray[np.uint8]:
    """Normalised pixels (1, 3, H, W) back to the 8-bit values that they come from.

    Raises:
        ValueError: they do not come from such values.
    """
    rows = zip(normalisation_table(spec), pixels[0], strict=True)
    levels = np.stack([np.searchsorted(row, plane).clip(max=255) for row, plane in rows])[None].astype(np.uint8)
    if not np.array_equal(to_input(levels, spec), pixels):
        raise ValueError("expected pixels that come from 8-bit values, found others")
    return levels
