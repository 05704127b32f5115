"""8-bit values and normalised pixels: there and back without loss."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer_runtime.tasks.vision import ImagePreprocessing, to_input, to_levels

SPEC = ImagePreprocessing(
    height=16,
    width=16,
    resize_short_side=16,
    interpolation="bicubic",
    crop="center",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
LEVELS = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16) for _ in range(3)])[None]


def test_every_value_of_every_channel_comes_back() -> None:
    pixels = to_input(LEVELS, SPEC)
    assert (pixels.dtype, pixels.shape) == (np.float32, (1, 3, 16, 16))
    expected = (LEVELS[0] / 255 - np.array(SPEC.mean)[:, None, None]) / np.array(SPEC.std)[:, None, None]
    np.testing.assert_allclose(pixels[0], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(to_levels(pixels, SPEC), LEVELS)


@pytest.mark.parametrize("change", [1e-3, np.nan, 100.0])
def test_pixels_of_no_image_are_refused(change: float) -> None:
    pixels = to_input(LEVELS, SPEC)
    pixels[0, 1, 3, 4] += np.float32(change)
    with pytest.raises(ValueError, match="8-bit"):
        to_levels(pixels, SPEC)
