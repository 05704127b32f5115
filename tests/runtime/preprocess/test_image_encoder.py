"""Images to pixels: equal to timm's evaluation transform for every file that people have, or one clear line."""

from __future__ import annotations

import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder, to_rgb
from edgeformer_runtime.tasks.vision import ImagePreprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = ImagePreprocessing(224, 224, 235, "bicubic", "center", MEAN, STD)  # floor(224 / 0.95) = 235
SMALL = ImagePreprocessing(16, 16, 20, "bilinear", "center", MEAN, STD)
ONE_LEVEL = 1 / 255 / min(STD)
NEEDS_HEIC = pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs edgeformer-runtime[heic]")


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -1/2."""
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(x))


def filter_matrix(size_in: int, size_out: int, kernel, support: float) -> np.ndarray:
    """(size_out, size_in) weights of a filter that widens when it shrinks, cut off and rescaled at the borders."""
    scale = size_in / size_out
    width = max(scale, 1.0)
    centers = (np.arange(size_out) + 0.5) * scale
    pixels = np.arange(size_in) + 0.5
    weights = kernel((pixels[None] - centers[:, None]) / width)
    weights[np.abs(pixels[None] - centers[:, None]) > support * width + 0.5] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def reference(pixels: np.ndarray, spec: ImagePreprocessing) -> np.ndarray:
    """The whole transform in float64, rounding to 8 bits after each axis as Pillow does."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    rows, columns = (int(spec.resize_short_side * side / short) for side in (height, width))
    kernel, support = (cubic, 2.0) if spec.interpolation == "bicubic" else (triangle, 1.0)
    across, down = filter_matrix(width, columns, kernel, support), filter_matrix(height, rows, kernel, support)
    values = np.clip(np.rint(np.einsum("xw,hwc->hxc", across, pixels.astype(np.float64), optimize=True)), 0, 255)
    values = np.clip(np.rint(np.einsum("yh,hxc->yxc", down, values, optimize=True)), 0, 255)
    top, left = round((rows - spec.height) / 2), round((columns - spec.width) / 2)
    values = values[top : top + spec.height, left : left + spec.width]
    return ((values / 255 - np.array(spec.mean)) / np.array(spec.std)).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(75, 113), (113, 75), (15, 150), (7, 9), (59, 59), (60, 59)])
def test_equals_an_independent_implementation(interpolation: str, size: tuple[int, int]) -> None:
    spec = ImagePreprocessing(56, 56, 59, interpolation, "center", MEAN, STD)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)
    found = ImageEncoder(spec)(pixels)
    assert found.shape == (1, 3, 56, 56)
    assert found.dtype == np.float32
    difference = np.abs(found - reference(pixels, spec))
    # Pillow's weights have 22 bits: at an exact half, frequent between two pixels, it may round the other way.
    assert difference.max() <= ONE_LEVEL * 1.001
    assert (difference > ONE_LEVEL / 2).mean() < 0.015


def test_without_resizing_it_is_exact() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (235, 235, 3), dtype=np.uint8)
    expected = pixels[6:230, 6:230].astype(np.float64) / 255  # round(5.5) = 6: halves go to the even number
    expected = (expected - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(ImageEncoder(IMAGENET)(pixels)[0], expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_squash_keeps_the_whole_image() -> None:
    spec = ImagePreprocessing(8, 8, 8, "bilinear", "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    pixels = np.zeros((10, 40, 3), dtype=np.uint8)
    pixels[:, :20] = 200
    found = ImageEncoder(spec)(pixels)[0, 0]
    np.testing.assert_allclose(found[:, :3], 200 / 255, atol=1e-6)
    np.testing.assert_allclose(found[:, 5:], 0, atol=1e-6)


def test_all_orientations_give_the_same_pixels(assets: Path) -> None:
    encode = ImageEncoder(IMAGENET)
    upright = encode(assets / "images/exif/landscape_1.jpg")
    for orientation in range(2, 9):
        turned = encode(str(assets / f"images/exif/landscape_{orientation}.jpg"))
        # The files were compressed after turning: they differ as JPEGs of one photo do, by about two levels.
        assert np.abs(turned - upright).mean() < 2.5 * ONE_LEVEL


def test_every_edge_image_resembles_the_photo(assets: Path) -> None:
    encode = ImageEncoder(IMAGENET)
    photo = encode(assets / "images/open/chelsea.png")
    for path in sorted((assets / "images/edge").iterdir()):
        found = encode(path)
        assert found.shape == photo.shape
        assert np.isfinite(found).all()
        likeness = np.corrcoef(found.mean(axis=1).ravel(), photo.mean(axis=1).ravel())[0, 1]
        # The 10:1 panorama is stretched, the thumbnail has 9 x 7 pixels, and the last fades into white.
        weak = {"chelsea_wide.jpg": 0.0, "chelsea_tiny.png": 0.5, "chelsea_rgba.png": 0.2}
        assert likeness > weak.get(path.name, 0.95)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "memoryview", "pillow", "array", "floats"])
def test_every_kind_of_input_gives_the_same(kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    inputs = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "pillow": Image.open(path),
        "array": pixels,
        "floats": pixels.astype(np.float32) / 255,
    }
    np.testing.assert_array_equal(ImageEncoder(SMALL)(inputs[kind]), ImageEncoder(SMALL)(pixels))


def test_gray_arrays_of_two_and_three_axes() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for array in (gray, gray[:, :, None], np.repeat(gray[:, :, None], 3, axis=2)):
        np.testing.assert_array_equal(np.asarray(to_rgb(array))[:, :, 0], gray)


def test_transparency_is_laid_over_white() -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (10, 20, 30, 128)
    found = np.asarray(to_rgb(pixels))
    assert found[0, 0].tolist() == [10, 20, 30]
    np.testing.assert_allclose(found[0, 1], [v * 128 / 255 + 127 for v in (10, 20, 30)], atol=1)
    assert found[1, 1].tolist() == [255, 255, 255]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([1, 2, 3])
    data = io.BytesIO()
    palette.save(data, "PNG", transparency=0)
    assert np.asarray(to_rgb(data.getvalue()))[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_gray_is_scaled() -> None:
    values = np.array([[0, 128, 129, 32896, 65535]], dtype=np.uint16)
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    assert np.asarray(to_rgb(data.getvalue()))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_a_phones_second_picture_is_no_animation() -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 8, 7)).save(data, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert np.abs(np.asarray(to_rgb(data.getvalue())).astype(int) - (9, 8, 7)).max() <= 2


def png(width: int, height: int) -> bytes:
    """A PNG's header that claims a size, with hardly any data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animation(file_format: str) -> bytes:
    data = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(data, file_format, save_all=True, append_images=frames[1:])
    return data.getvalue()


def photo(file_format: str) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, file_format)
    return data.getvalue()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "is empty"),
        (b"GIF", "not an image"),
        (b"not an image at all" * 100, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        pytest.param(b"\x00\x00\x00\x18ftypheic" + b"\0" * 100, "corrupted image", marks=NEEDS_HEIC),
        (png(30000, 30000), "million"),
        (png(12000, 11000), "12000 x 11000"),
        (png(0, 5), "image"),
        (photo("PNG")[:-500], "corrupted"),
        (photo("JPEG")[:-500], "corrupted"),
        (photo("WEBP")[:-500], "image"),
        (photo("BMP")[:-500], "corrupted"),
        (photo("TIFF")[:-500], "corrupted"),
        (photo("PNG")[:20], "image"),
        (photo("JPEG")[:20], "image"),
        (animation("GIF"), "animated"),
        (animation("PNG"), "animated"),
        (animation("WEBP"), "animated"),
        (animation("TIFF"), "several pages"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "shape"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "shape"),
        (np.zeros(8, dtype=np.uint8), "shape"),
        (np.zeros((8, 8, 2), dtype=np.uint8), "shape"),
        (np.zeros((8, 8, 3), dtype=np.int32), "int32"),
        (np.full((8, 8, 3), 255.0), "expected 0 to 1"),
        (np.full((8, 8, 3), np.nan), "expected 0 to 1"),
        (np.zeros((1, 200_000, 3), dtype=np.uint8), "resize"),
        (Image.new("RGB", (0, 3)), "empty"),
        (Image.fromarray(np.full((2, 2), 1e6, dtype=np.float32)), "corrupted"),
        ("/no/such/photo.jpg", "No such file"),
        ("/tmp", "directory"),
        ("bad\0name", "null"),
        (42, "int"),
        (None, "NoneType"),
    ],
)
def test_refusals_are_one_line(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ImageEncoder(IMAGENET)(image)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")  # they would stand beside the answer, a line for each other file
def test_unreadable_metadata_does_not_hide_the_photo() -> None:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert to_rgb(data.getvalue()).size == (8, 8)
    tiff = bytearray(photo("TIFF"))
    at = int.from_bytes(tiff[4:8], "little")  # of the directory, which is the last thing in the file
    tiff[at : at + 2] = b"\x40\0"
    with pytest.raises(InputError, match="image"):
        to_rgb(bytes(tiff[: at + 30]))


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "nearest"},
        {"crop": "left"},
        {"height": 0},
        {"resize_short_side": 223},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (0.5,)},
        {"channels": "BGR"},
        {"layout": "NHWC"},
        {"kind": "text"},
    ],
)
def test_spec_refuses_what_nothing_implements(change: dict) -> None:
    valid = {"height": 224, "width": 224, "resize_short_side": 235, "interpolation": "bicubic", "crop": "center"}
    with pytest.raises(InputError, match="image preprocessing"):
        ImagePreprocessing(**{**valid, "mean": MEAN, "std": STD, **change})


def test_a_long_path_is_shown_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 60) / ("b" * 60) / "holiday.jpg"
    with pytest.raises(InputError, match="holiday"):
        ImageEncoder(IMAGENET)(path)
