"""Image files from strangers, decoded once, in a stated amount of memory, and read upright in bands of rows."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import needs

if TYPE_CHECKING:
    from pillow_heif import HeifFile

# HEIC and AVIF, the photos of phones: which of them a file is, and what opens it here.


HEIC, AVIF = "HEIC", "AVIF"
START_BYTES = 32
"""Of a file, enough to tell: the size, "ftyp", the major brand, and the first compatible ones."""

# ISO/IEC 23008-12, table 1 and annexes B and G; mif1 and msf1 hold either codec, which the other brands then say.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_EITHER = (b"mif1", b"msf1")

UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError, KeyError, TypeError, MemoryError)
"""What libheif's binding raises on corrupted files."""


def kind_of(start: bytes) -> str | None:
    """`HEIC`, `AVIF`, or None for what is neither, by a file's first `START_BYTES`."""
    if start[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(start[:4], "big"), len(start))
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, length - 3, 4))]
    if brands[0] not in (*_AVIF_BRANDS, *_HEIC_BRANDS, *_EITHER):
        return None
    return AVIF if any(brand in _AVIF_BRANDS for brand in brands) else HEIC


def check_avif(what: str) -> None:
    """Refuse an AVIF photo where Pillow was built without its decoder.

    Raises:
        InputError: says what to install.
    """
    if not features.check("avif"):
        raise InputError(f"{what} is an AVIF photo: reading it needs Pillow 11.3 or later: pip install -U Pillow")


def open_heic(file: IO[bytes], what: str) -> HeifFile:
    """Parse a HEIC photo; its pixels are decoded when they are asked for, turned and mirrored as the file says.

    The EXIF orientation beside that is not applied: the format's own transformations stand for it (ISO/IEC 23008-12,
    6.5.10), as phones write both.

    Raises:
        InputError: the reader is not installed, or the file is corrupted or holds several images.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{what} is a HEIC photo: {needs('reading it', error, 'heic')}") from error
    try:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
    except UNREADABLE as error:
        raise InputError(f"{what} is a corrupted image: {' '.join(str(error).split())}") from None
    if len(heif) == 0:
        raise InputError(f"{what} is a corrupted image: its file holds no picture")
    if len(heif) > 1:
        raise InputError(f"{what} is animated or has several pages: expected a single image, save one of them")
    return heif


MAX_PIXELS = 128_000_000
"""Of a source image, and of it resized: above the 108 million of today's phones."""

MAX_DECODED_BYTES = 512_000_000
"""What decoding may take: the pixels as Pillow holds them, and what its decoder keeps beside them."""

REDUCED_FROM_PIXELS = 24_000_000
"""A JPEG with more is decoded at a half, a quarter or an eighth of its sides, if they are still `_MARGIN` times what is
wanted.
"""
_MARGIN = 4

BAND_PIXELS = 1 << 20

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""What Pillow opens for us; it knows more formats, some of which start other programs. HEIC has a reader of its own."""

Wanted = Callable[[tuple[int, int]], tuple[int, int]]
"""From the size of an upright image to the size that it will be resized to."""

_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(RuntimeError, struct.error, MemoryError),
)
"""What Pillow's decoders raise on corrupted files, depending on the format and the place."""

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_BYTES_OF_OTHERS = 4
_BYTES_PER_ROW = 8
"""A pointer of Pillow's: of an image one pixel wide twice as much as the pixels."""
_BYTES_BESIDE = {"WEBP": 8, "TIFF": 4, AVIF: 8, HEIC: 8}
"""What decoders keep of a whole image beside its pixels, per pixel: canvases, one strip that may be all of it."""
_COEFFICIENT_BYTES = 6
"""Of a JPEG in several scans, whose decoder keeps every coefficient, per pixel of three channels."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns each EXIF orientation upright."""
_ROWS_ARE_COLUMNS = (5, 6, 7, 8)
_LAST_FIRST = (3, 4, 7, 8)
"""The orientations whose first upright row is the file's last row or column."""
_RIGHT_FIRST = (2, 3, 6, 7)
"""Those whose first upright column is."""


class UprightImage:
    """A decoded image in the orientation in which a person sees it.

    Attributes:
        width: of what was decoded, upright.
        height: likewise.
        stated_size: width and height that the file states, upright: more than what was decoded of a reduced JPEG.
        covered: left, top, right and bottom of the stated image in what was decoded: the last row or column of a
            reduced JPEG can lie half outside.
    """

    def __init__(
        self,
        image: Image.Image,
        what: str,
        orientation: int = 1,
        stated: tuple[int, int] | None = None,
        decoded: tuple[float, float] | None = None,
    ) -> None:
        """Use `open_image`, `decode` or `from_array`; `stated` and `decoded` sizes are as the file has them."""
        self._image = image
        self._what = what
        self._orientation = orientation
        self.width, self.height = _turned(image.size, orientation)
        self.stated_size = _turned(stated or image.size, orientation)
        width, height = decoded or image.size
        if orientation in _ROWS_ARE_COLUMNS:
            width, height = height, width
        left = self.width - width if orientation in _RIGHT_FIRST else 0.0
        top = self.height - height if orientation in _LAST_FIRST else 0.0
        self.covered = (left, top, left + width, top + height)

    def bands(self, width: int) -> Iterator[tuple[int, Image.Image]]:
        """All rows from the top, a band at a time: the number of its first row, and the band as opaque 8-bit RGB.

        Args:
            width: what rows will be resized to: wide rows make low bands.

        Raises:
            InputError: values that are no pixels.
        """
        height = max(1, BAND_PIXELS // max(width, self.width))
        for first in range(0, self.height, height):
            try:
                yield first, _opaque_rgb(self._rows(first, min(first + height, self.height)))
            except _BROKEN as error:
                raise InputError(f"{self._what} is a corrupted image: {shorten(str(error))[1:-1]}") from None

    def whole(self) -> Image.Image:
        """All rows at once, as opaque 8-bit RGB.

        Raises:
            InputError: as `bands`.
        """
        joined = Image.new("RGB", (self.width, self.height))
        for first, band in self.bands(0):
            joined.paste(band, (0, first))
        return joined

    def _rows(self, first: int, last: int) -> Image.Image:
        """Upright rows; only they are copied."""
        if self._orientation in _LAST_FIRST:
            first, last = self.height - last, self.height - first
        if self._orientation in _ROWS_ARE_COLUMNS:
            box = (first, 0, last, self._image.height)
        else:
            box = (0, first, self._image.width, last)
        band = self._image.crop(box)
        method = _UPRIGHT.get(self._orientation)
        return band if method is None else band.transpose(method)


def open_image(file: IO[bytes], what: str, wanted: Wanted | None = None) -> UprightImage:
    """Decode a file.

    Args:
        file: open for reading; it can be closed afterwards.
        what: what messages call it.
        wanted: for images that will be made smaller; a large JPEG is then decoded at a part of its size.

    Raises:
        InputError: not an image, corrupted, animated, empty, or too large.
    """
    start = file.read(START_BYTES)
    if not start:
        raise InputError(f"{what} is empty: expected an image")
    file.seek(0)
    kind = kind_of(start)
    if kind == HEIC:
        return _decode_heic(file, what)
    if kind == AVIF:
        check_avif(what)
    try:
        with warnings.catch_warnings():
            # Of corrupted EXIF data and tags, which are not used, and of sizes below our limit, which is checked later.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError:
        raise InputError(f"{what} has more than {MAX_PIXELS // 10**6} million pixels: resize it first") from None
    except UnidentifiedImageError:
        raise InputError(f"{what} is {_not_an_image(kind)}") from None
    except _BROKEN as error:
        raise InputError(f"{what} is a corrupted image: {shorten(str(error))[1:-1]}") from None
    with image:
        return decode(image, what, wanted)


def _decode_heic(file: IO[bytes], what: str) -> UprightImage:
    """As `decode`; which way is up is the decoder's to apply."""
    heif = open_heic(file, what)
    width, height = heif.size
    check_pixels(width, height, what)
    _check_bytes(heif, HEIC, (width, height), what)
    try:
        image = heif.to_pillow()
    except UNREADABLE as error:
        raise InputError(f"{what} is a corrupted image: {shorten(str(error))[1:-1]}") from None
    check_pixels(*image.size, what)
    return UprightImage(image, what)


def decode(image: Image.Image, what: str, wanted: Wanted | None = None) -> UprightImage:
    """Check before decoding, decode, and see which way is up.

    Raises:
        InputError: as `open_image`.
    """
    check_pixels(*image.size, what)
    # A phone's MPO is a JPEG with a second picture, such as a depth map: the first is the photo.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise InputError(f"{what} is animated or has several pages: expected a single image, save one of them")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as when it was opened
            stated, decoded = image.size, None
            if wanted is not None:
                wanted(stated)  # refuses what would be too large once it is resized, whichever way is up
            if wanted is not None and image.format in ("JPEG", "MPO") and math.prod(stated) > REDUCED_FROM_PIXELS:
                orientation = _orientation(image)  # of other formats it is known when they are decoded
                target = _turned(wanted(_turned(stated, orientation)), orientation)
                reduced = image.draft(None, (_MARGIN * target[0], _MARGIN * target[1]))
                decoded = None if reduced is None else reduced[1][2:]
            _check_bytes(image, image.format or "", stated, what)
            image.load()
            return UprightImage(image, what, _orientation(image), stated, decoded)
    except _BROKEN as error:
        raise InputError(f"{what} is a corrupted image: {shorten(str(error))[1:-1]}") from None


def from_array(array: NDArray[Any]) -> Image.Image:
    """uint8, or floats from 0 to 1, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); four channels are RGB and alpha.

    Raises:
        InputError: another shape, dtype or range, or too large.
    """
    shape = array.shape
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in (1, 3, 4) or 0 in shape:
        raise InputError(f"expected an image array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), found shape {shape}")
    check_pixels(shape[1], shape[0], "the array")
    if array.dtype.kind == "f":
        try:
            array = _bytes_from_floats(array)
        except ValueError as error:
            raise InputError(f"the image array has {error}") from None
    elif array.dtype != np.uint8:
        raise InputError(f"expected an image array of uint8 or floats from 0 to 1, found {array.dtype}")
    return Image.fromarray(array[:, :, 0] if len(shape) == 3 and channels == 1 else array)


def check_pixels(width: int, height: int, what: str) -> None:
    """Refuse an image that is empty or has too many pixels.

    Raises:
        InputError: says which.
    """
    if width < 1 or height < 1:
        raise InputError(f"{what} is empty: {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{what} has {width} x {height} pixels, above the limit of {MAX_PIXELS // 10**6} million: resize it first"
        )


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _ROWS_ARE_COLUMNS else size


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none; EXIF data that cannot be read states none."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BROKEN:
        return 1
    return found if found in _UPRIGHT else 1


def _check_bytes(image: Image.Image | HeifFile, kind: str, stated: tuple[int, int], what: str) -> None:
    """Refuse what would take too much memory; `image` is to be decoded at its own size, which may be reduced."""
    needed = math.prod(image.size) * _BYTES_PER_PIXEL.get(image.mode, _BYTES_OF_OTHERS)
    needed += image.size[1] * _BYTES_PER_ROW + math.prod(stated) * _BYTES_BESIDE.get(kind, 0)
    if image.info.get("progressive") or image.info.get("progression"):
        needed += math.prod(stated) * _COEFFICIENT_BYTES
    if needed > MAX_DECODED_BYTES:
        raise InputError(
            f"{what} of {stated[0]} x {stated[1]} pixels would take {needed // 10**6} MB of memory, above the limit of "
            f"{MAX_DECODED_BYTES // 10**6}: resize it first"
        )


def _not_an_image(kind: str | None) -> str:
    if kind is not None:
        return f"a corrupted image: it starts as {kind} and is none"
    return f"not an image: expected one of {', '.join((*FORMATS, HEIC))}"


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


def _bytes_from_floats(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
        raise ValueError(f"values from {low:g} to {high:g}, expected 0 to 1")
    levels: NDArray[np.uint8] = np.rint(values * 255).astype(np.uint8)
    return levels
