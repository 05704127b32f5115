"""Photos to the pixels that a vision model was trained on, as timm's evaluation transform makes them."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image_file import (
    UprightImage,
    Wanted,
    check_pixels,
    decode,
    from_array,
    open_image,
)
from edgeformer_runtime.tasks.vision import COLUMNS, IMAGE_INPUT, PAD, ROWS, ImagePreprocessing, normalisation_table

WHOLE_PIXELS = 4_000_000
"""An image with more is resized in bands of rows."""

SHOWN_PATH = 300
"""Characters of a path in a message: the part that tells two files apart is at its end."""

RawImage = str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
"""A file, its bytes, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) of uint8 or floats 0 to 1."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class ImageEncoder:
    """Turns images into a model's input. Calls from several threads are safe: nothing changes after init.

    The steps are those of timm's `create_transform(..., is_training=False)` on torchvision: resize the short side
    with Pillow's filter, crop the center, scale to 0..1, normalise. Both resize in Pillow's 8-bit fixed point
    arithmetic, and the float32 operations after it are the same ones in the same order, so with one version of
    Pillow the results are equal bit for bit, up to `WHOLE_PIXELS`. Against another implementation of the same
    filter, rounding may move a pixel by one of its 256 levels: at most 1 / (255 * min(std)) in the result, 0.0175
    for ImageNet's std.

    What that transform leaves open is done as a person sees the image: EXIF orientation is applied, transparency is
    laid over white, 16-bit gray is scaled (not clipped) to 8 bits, and CMYK, palettes and gray become RGB.
    """

    def __init__(self, spec: ImagePreprocessing) -> None:
        self._spec = spec
        self._table = normalisation_table(spec)

    def __call__(self, image: RawImage) -> NDArray[np.float32]:
        """Encode one image.

        Returns:
            (1, 3, H, W) float32, normalised; contiguous and the caller's.

        Raises:
            InputError: not an image, corrupted, animated, empty or too large.
        """
        return self._encoded(_opened(image, self._resized))

    def inputs(self, image: RawImage) -> tuple[dict[str, NDArray[np.float32]], tuple[int, int]]:
        """What a program takes of one image, and the image's own width and height, upright.

        Returns:
            `pixels` as a call gives them, and of padded images `rows` (1, H) and `columns` (1, W) float32, 1 where the
            image is; and a pair of pixels.

        Raises:
            InputError: as a call.
        """
        source = _opened(image, self._resized)
        size = source.stated_size
        inputs = {IMAGE_INPUT: self._encoded(source)}
        if self._spec.crop == PAD:
            width, height = self._resized(size)
            inputs[ROWS] = (np.arange(self._spec.height) < height)[None].astype(np.float32)
            inputs[COLUMNS] = (np.arange(self._spec.width) < width)[None].astype(np.float32)
        return inputs, size

    def _encoded(self, source: UprightImage) -> NDArray[np.float32]:
        pixels = np.asarray(self._resized_and_cropped(source))  # (H, W, 3) uint8
        out = np.empty((1, 3, self._spec.height, self._spec.width), dtype=np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=out[0, channel])
        return out

    def _resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height that an image of this size gets."""
        side = self._spec.resize_short_side
        width, height = size
        if self._spec.crop == "squash":
            return side, side
        if self._spec.crop == PAD:
            return self._fitted(width, height)
        resized = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
        check_pixels(*resized, f"an image of {width} x {height} pixels, resized for this model,")
        return resized

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        """What transformers' processors of detectors make of a width and a height: neither side above its limit."""
        spec = self._spec
        assert spec.resize_long_side is not None
        short: float = spec.resize_short_side
        least, most = min(width, height), max(width, height)
        if most / least * short > spec.resize_long_side:
            short = spec.resize_long_side * least / most
        long_side, short_side = int(short * most / least), round(short)
        if least == short_side:
            long_side = most
        sides = [each - each % spec.multiple_of for each in (short_side, long_side)]
        if min(sides) < 1:
            raise InputError(f"an image of {width} x {height} pixels is too narrow for this model: crop it first")
        return (sides[0], sides[1]) if width <= height else (sides[1], sides[0])

    def _before(self, cropped: int) -> int:
        """Of the pixels that are cropped, those at the left or the top."""
        if self._spec.crop == PAD:
            return 0
        # Python's rounding of halves to the even number is part of torchvision's CenterCrop.
        return cropped // 2 if self._spec.crop == "center-floor" else round(cropped / 2)

    def _resized_and_cropped(self, source: UprightImage) -> Image.Image:
        """Rows first, then columns; of a large image in bands, so that never all of it is there as RGB. What is cropped
        from outside of the image is black.

        Pillow's own resize, which newer versions begin with the columns of very tall images, can differ by a rounding.
        """
        width, height = self._resized(source.stated_size)
        filter_, spec = _RESAMPLING[self._spec.interpolation], self._spec
        left, top = self._before(width - spec.width), self._before(height - spec.height)
        box = (left, top, left + spec.width, top + spec.height)
        if source.width * source.height <= WHOLE_PIXELS:
            only = source.whole()
            resized = only if only.size == (width, height) else only.resize((width, height), filter_, source.covered)
            return resized.crop(box)
        x0, y0, x1, y1 = source.covered
        narrow = Image.new("RGB", (spec.width, source.height))
        for first, band in source.bands(width):
            if band.width != width:
                band = band.resize((width, band.height), filter_, (x0, 0, x1, band.height))
            narrow.paste(band.crop((left, 0, left + spec.width, band.height)), (0, first))
        if narrow.height != height:
            narrow = narrow.resize((spec.width, height), filter_, (0, y0, spec.width, y1))
        return narrow.crop((0, top, spec.width, top + spec.height))


def to_rgb(image: RawImage) -> Image.Image:
    """Any supported image, whole, upright, opaque and as 8-bit RGB.

    Raises:
        InputError: as `ImageEncoder`.
    """
    return _opened(image, None).whole()


def _opened(image: RawImage, wanted: Wanted | None) -> UprightImage:
    """An image of any kind; a large JPEG reduced, if `wanted` says what it will be resized to."""
    if isinstance(image, np.ndarray):
        return UprightImage(from_array(image), "the image array")
    if isinstance(image, Image.Image):
        return decode(image, "the image")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return open_image(io.BytesIO(image), f"an image of {len(bytes(image))} bytes", wanted)
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        shown = shorten(str(path), SHOWN_PATH)
        try:
            # What is no plain file, as a pipe, cannot be read twice.
            with path.open("rb") if path.is_file() else io.BytesIO(path.read_bytes()) as file:
                return open_image(file, shown, wanted)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError(f"cannot read the image {shown}: {reason}") from None
    raise InputError(f"expected an image as a path, bytes, Pillow image or array, found {type(image).__name__}")
