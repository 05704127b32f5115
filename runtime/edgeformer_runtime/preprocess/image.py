"""Photos to the pixels that a vision model was trained on, as timm's evaluation transform makes them."""

from __future__ import annotations

import io
import math
import struct
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image_spec import ImagePreprocessing
from edgeformer_runtime.preprocess.pixels import normalisation_table
from edgeformer_runtime.strict_json import shorten

MAX_PIXELS = 128_000_000
"""Of a source image, and of it resized: above the 108 million of today's phones, 384 MB as RGB."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is opened; Pillow knows more formats, some of which start other programs."""

SHOWN_PATH = 300
"""Characters of a path in a message: the part that tells two files apart is at its end."""

RawImage = str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
"""A file, its bytes, a Pillow image, or an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) of uint8 or floats 0 to 1."""

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, MemoryError)
"""What Pillow's decoders raise on spoiled files, depending on the format and the place."""

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_ISO_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif")


class ImageEncoder:
    """Turns images into a model's input. Calls from several threads are safe: nothing changes after init.

    The steps are those of timm's `create_transform(..., is_training=False)` on torchvision: resize the short side with
    Pillow's filter, crop the center, scale to 0..1, normalise. Both resize in Pillow's 8-bit fixed point arithmetic,
    and the float32 operations after it are the same ones in the same order, so with one version of Pillow the results
    are equal bit for bit. Against another implementation of the same filter, rounding may move a pixel by one of its
    256 levels: at most 1 / (255 * min(std)) in the result, 0.0175 for ImageNet's std.

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
            InputError: not an image, spoiled, animated, empty or too large.
        """
        pixels = np.asarray(self._crop(self._resize(to_rgb(image))))  # (H, W, 3) uint8
        out = np.empty((1, 3, self._spec.height, self._spec.width), dtype=np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=out[0, channel])
        return out

    def _resize(self, image: Image.Image) -> Image.Image:
        side = self._spec.resize_short_side
        width, height = image.size
        if self._spec.crop == "squash":
            size = (side, side)
        elif width <= height:
            size = (side, int(side * height / width))
        else:
            size = (int(side * width / height), side)
        _check_pixels(*size, f"an image of {width} x {height} pixels, resized for this model,")
        return image if size == image.size else image.resize(size, _RESAMPLING[self._spec.interpolation])

    def _crop(self, image: Image.Image) -> Image.Image:
        # Python's rounding of halves to the even number is part of torchvision's CenterCrop.
        left = round((image.width - self._spec.width) / 2)
        top = round((image.height - self._spec.height) / 2)
        return image.crop((left, top, left + self._spec.width, top + self._spec.height))


def to_rgb(image: RawImage) -> Image.Image:
    """Any supported image, upright, opaque and as 8-bit RGB.

    Raises:
        InputError: as `ImageEncoder`.
    """
    if isinstance(image, np.ndarray):
        return _opaque_rgb(_from_array(image))
    if isinstance(image, Image.Image):
        return _decode(image, "the image")
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _open(bytes(image), f"an image of {len(bytes(image))} bytes")
    if isinstance(image, (str, PathLike)):
        path = Path(image)
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise InputError(f"cannot read the image {shorten(str(path), SHOWN_PATH)}: {reason}") from None
        return _open(data, shorten(str(path), SHOWN_PATH))
    raise InputError(f"expected an image as a path, bytes, Pillow image or array, found {type(image).__name__}")


def _open(data: bytes, what: str) -> Image.Image:
    if not data:
        raise InputError(f"{what} is empty: expected an image")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit warns below ours; ours is checked before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(f"{what} has more than {MAX_PIXELS // 10**6} million pixels: resize it first") from None
    except UnidentifiedImageError:
        raise InputError(f"{what} is {_not_an_image(data)}") from None
    except _BROKEN as error:
        raise InputError(f"{what} is a spoiled image: {shorten(str(error))[1:-1]}") from None
    with image:
        return _decode(image, what)


def _not_an_image(data: bytes) -> str:
    if data[4:8] == b"ftyp" and data[8:12] in _ISO_BRANDS:
        return "a HEIC or AVIF photo, which is not supported: save it as JPEG or PNG"
    return f"not an image: expected one of {', '.join(FORMATS)}"


def _decode(image: Image.Image, what: str) -> Image.Image:
    """Check before decoding, decode, turn upright."""
    _check_pixels(*image.size, what)
    # A phone's MPO is a JPEG with a second picture, such as a depth map: the first is the photo.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{what} is animated or has several pages: expected a single image, save one of them")
    try:
        image.load()
        return _opaque_rgb(_upright(image))
    except _BROKEN as error:
        raise InputError(f"{what} is a spoiled image: {shorten(str(error))[1:-1]}") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _BROKEN:
        # An unreadable EXIF block states no orientation; the pixels are whole.
        return image


def _opaque_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BITS:
        # Pillow would clip at 255. 65535 / 257 = 255.
        return _gray_from_wide(np.asarray(image).astype(np.int64)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_bytes_from_floats(np.asarray(image))).convert("RGB")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _gray_from_wide(values: NDArray[np.int64]) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"gray values from {values.min()} to {values.max()}, expected at most 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _from_array(array: NDArray[Any]) -> Image.Image:
    """uint8, or floats from 0 to 1, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); four channels are RGB and alpha."""
    shape = array.shape
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        raise InputError(f"expected an image array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), found shape {shape}")
    _check_pixels(shape[1], shape[0], "the array")
    if array.dtype.kind == "f":
        try:
            array = _bytes_from_floats(array)
        except ValueError as error:
            raise InputError(f"the image array has {error}") from None
    elif array.dtype != np.uint8:
        raise InputError(f"expected an image array of uint8 or floats from 0 to 1, found {array.dtype}")
    return Image.fromarray(array[:, :, 0] if len(shape) == 3 and channels == 1 else array)


def _bytes_from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to 1")
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels


def _check_pixels(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise InputError(f"{what} is empty: {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{what} has {width} x {height} pixels, above the limit of {MAX_PIXELS // 10**6} million: resize it first"
        )
