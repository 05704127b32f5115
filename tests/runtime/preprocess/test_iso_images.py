"""HEIC and AVIF, as phones write them: upright once, one image, within the limits of all formats."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess import image_file
from edgeformer_runtime.preprocess.image import to_rgb
from edgeformer_runtime.preprocess.image_file import AVIF, HEIC, kind_of

ORIENTATION = 0x0112
RED, BLUE = (255, 0, 0), (0, 0, 255)
# Where the file's top left corner, red here, is seen for each orientation: its row and its column.
RED_IS_AT = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}

pillow_heif = pytest.importorskip("pillow_heif", reason="edgeformer-runtime[heic] is not installed")


def corners() -> NDArray[np.uint8]:
    """(48, 64, 3): black, with red at the top left and blue at the bottom right."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:16, :16], pixels[-16:, -16:] = RED, BLUE
    return pixels


def heic(pixels: NDArray[np.uint8], orientation: int = 1, further: int = 0) -> bytes:
    """A HEIC file turned by its own `irot` and `imir`, with the same in EXIF, as phones write it."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    file = pillow_heif.HeifFile()
    for _ in range(1 + further):
        file.add_frombytes("RGB" if pixels.shape[2] == 3 else "RGBA", pixels.shape[1::-1], pixels.tobytes())
    out = io.BytesIO()
    file.save(out, quality=-1, chroma=444, exif=tags.tobytes())
    return out.getvalue()


def avif(pixels: NDArray[np.uint8], orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "AVIF", quality=100, subsampling="4:4:4", exif=tags.tobytes())
    return out.getvalue()


WRITERS = {
    HEIC: heic,
    AVIF: pytest.param(avif, marks=pytest.mark.skipif(not features.check("avif"), reason="a Pillow without AVIF")),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("orientation", RED_IS_AT)
def test_each_orientation_is_applied_once(write: Callable[..., bytes], orientation: int) -> None:
    data = write(corners(), orientation)
    assert kind_of(data[:32]) in (HEIC, AVIF)
    found = np.asarray(to_rgb(data)).astype(int)
    assert found.shape[:2] == ((64, 48) if orientation > 4 else (48, 64))
    row, column = RED_IS_AT[orientation]
    assert np.abs(found[row, column] - RED).max() < 8
    assert np.abs(found[-1 - row, -1 - column] - BLUE).max() < 8


def test_the_files_own_rotation_counts_not_exifs() -> None:
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00"
    data = heic(corners())
    assert data.count(tag + b"\x01") == 1
    found = np.asarray(to_rgb(data.replace(tag + b"\x01", tag + b"\x06"))).astype(int)
    assert found.shape[:2] == (48, 64)
    assert np.abs(found[0, 0] - RED).max() < 8


def test_pixels_are_those_of_a_png() -> None:
    """Lossless; only the colour transform rounds."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    for data in (heic(pixels), avif(pixels)) if features.check("avif") else (heic(pixels),):
        found = np.asarray(to_rgb(data)).astype(int)
        assert np.abs(found - pixels).mean() < 3


def test_transparency_lies_over_white() -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    assert np.asarray(to_rgb(heic(pixels))).min() >= 250


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (heic(corners(), further=1), "is animated or has several pages"),
        (heic(corners())[:400], "is a corrupted image"),
        (heic(corners())[:-60], "is a corrupted image"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(60), "is a corrupted image"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif" + bytes(60), "a corrupted image"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00mp41isom" + bytes(60), "is not an image: expected one of JPEG"),
    ],
)
def test_what_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        to_rgb(data)


def test_an_animated_avif_is_refused() -> None:
    if not features.check("avif"):
        pytest.skip("a Pillow without AVIF")
    frames = [Image.fromarray(corners()), Image.fromarray(255 - corners())]
    out = io.BytesIO()
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is animated or has several pages"):
        to_rgb(out.getvalue())


def test_limits_are_those_of_all_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(corners())
    monkeypatch.setattr(image_file, "MAX_DECODED_BYTES", 48 * 64 * 11)
    with pytest.raises(InputError, match="MB of memory, above the limit"):
        to_rgb(data)
    monkeypatch.setattr(image_file, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(InputError, match="has 64 x 48 pixels, above the limit"):
        to_rgb(data)


def test_without_the_reader_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(corners())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError) as caught:
        to_rgb(data)
    assert str(caught.value).endswith(
        "is a HEIC photo: reading it needs the package pillow_heif: pip install 'edgeformer-runtime[heic]'"
    )


def test_without_avif_in_pillow_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    with pytest.raises(InputError, match=r"needs Pillow 11\.3 or later: pip install -U Pillow"):
        to_rgb(b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif" + bytes(60))
