"""Images in bands and in bounded memory: the same pixels, and never more bytes than are stated."""

from __future__ import annotations

import io
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess import image, image_file
from edgeformer_runtime.preprocess.image import ImageEncoder, to_rgb
from edgeformer_runtime.tasks.vision import ImagePreprocessing

SPECS = (
    ImagePreprocessing(24, 24, 31, "bicubic", "center", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ImagePreprocessing(24, 20, 40, "bilinear", "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)
MEASURED = """
import resource, sys
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.tasks.vision import ImagePreprocessing
encoder = ImageEncoder(ImagePreprocessing(224, 224, 235, "bicubic", "center", (0.5,) * 3, (0.5,) * 3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoder(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def photo(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@cache
def soft_photo() -> Image.Image:
    """Colours of photos: saturated edges, whose colours JPEG keeps at half the size, differ by more."""
    return photo(1501, 1003).point(lambda value: 96 + value // 4).resize((1501, 1003), box=(0, 0, 400, 300))


def levels(encoder: ImageEncoder, raw: object) -> np.ndarray:
    return np.rint(encoder(raw)[0] * 255).astype(int)


def whole(upright: Image.Image, spec: ImagePreprocessing) -> np.ndarray:
    """Pillow's own resize of the whole image, and the crop."""
    side, (width, height) = spec.resize_short_side, upright.size
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    size = (side, side) if spec.crop == "squash" else size
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[spec.interpolation]
    resized = upright.resize(size, resample)
    left, top = round((size[0] - spec.width) / 2), round((size[1] - spec.height) / 2)
    return np.asarray(resized.crop((left, top, left + spec.width, top + spec.height))).transpose(2, 0, 1)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("band_pixels", [1, 1000, 1 << 20])
def test_bands_give_what_the_whole_gives(
    spec: ImagePreprocessing, orientation: int, band_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_file, "BAND_PIXELS", band_pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    photo(90, 61).save(data, "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data.getvalue()))).convert("RGB")
    encoder = ImageEncoder(spec)
    np.testing.assert_array_equal(levels(encoder, data.getvalue()), whole(upright, spec))
    monkeypatch.setattr(image, "WHOLE_PIXELS", 0)
    tall = spec.crop == "squash" and orientation > 4  # Pillow 12 and older begin with the rows there too
    assert np.abs(levels(encoder, data.getvalue()) - whole(upright, spec)).max() <= (1 if tall else 0)
    np.testing.assert_array_equal(np.asarray(to_rgb(data.getvalue())), np.asarray(upright))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "I;16", "CMYK"])
def test_bands_of_other_modes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gray = np.asarray(photo(70, 50).convert("L")).astype(np.uint16) * 200
    source = Image.fromarray(gray) if mode == "I;16" else photo(70, 50).convert(mode)
    data = io.BytesIO()
    source.save(data, "TIFF" if mode == "CMYK" else "PNG")
    encoder = ImageEncoder(SPECS[0])
    expected = levels(encoder, data.getvalue())
    monkeypatch.setattr(image, "WHOLE_PIXELS", 0)
    monkeypatch.setattr(image_file, "BAND_PIXELS", 500)
    np.testing.assert_array_equal(levels(encoder, data.getvalue()), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_reduced_within_two_levels(
    orientation: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    soft_photo().convert(mode).save(data, "JPEG", quality=92, exif=exif)
    for spec in SPECS:
        encoder = ImageEncoder(spec)
        full = levels(encoder, data.getvalue())
        with monkeypatch.context() as patch:
            patch.setattr(image_file, "REDUCED_FROM_PIXELS", 1000)
            opened = image_file.open_image(io.BytesIO(data.getvalue()), "it", lambda _: (31, 31))
            assert opened.width < opened.stated_size[0] / 2
            reduced = levels(encoder, data.getvalue())
        assert np.abs(full - reduced).max() <= 2


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: Image.new("P", (4000, 4000)), {"format": "PNG", "compress_level": 1, "transparency": 0}),
        (lambda: Image.new("1", (4000, 4000)), {"format": "PNG", "compress_level": 1}),
        (lambda: Image.new("I;16", (4000, 4000)), {"format": "PNG", "compress_level": 1}),
        (lambda: Image.new("RGBA", (4000, 4000)), {"format": "PNG", "compress_level": 1}),
        (lambda: Image.new("RGB", (6000, 6000)), {"format": "JPEG"}),
    ],
)
def test_memory_is_that_of_the_pixels(make, options: dict, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="memory is measured by getrusage")
    made = make()
    made.save(tmp_path / "it", **options)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "it")], capture_output=True, check=True, text=True
    )
    bytes_per_pixel = {"P": 1, "1": 1, "I;16": 2, "RGBA": 4, "RGB": 1}[made.mode]  # RGB: reduced to a quarter at least
    limit = 1.3 * bytes_per_pixel * made.width * made.height + (48 << 20)
    assert int(done.stdout) * 1024 < limit


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("PNG", lambda: Image.new("RGB", (2850, 2850)), {"compress_level": 1}),
        ("WEBP", lambda: Image.new("RGB", (1600, 1600)), {"lossless": True, "method": 0, "quality": 1}),
        ("JPEG", lambda: Image.new("RGB", (1900, 1900)), {"progressive": True}),
        ("TIFF", lambda: Image.new("RGB", (2220, 2220)), {"compression": "tiff_lzw"}),
    ],
)
def test_what_takes_too_much_is_refused_before_it_is_decoded(name: str, make, options: dict, monkeypatch) -> None:
    monkeypatch.setattr(image_file, "MAX_DECODED_BYTES", 20_000_000)
    data = io.BytesIO()
    make().save(data, name, **options)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"would take \d+ MB of memory, above the limit of 20:"):
        ImageEncoder(SPECS[0])(data.getvalue())


@pytest.mark.parametrize(
    ("crop", "size", "why"),
    [
        ("squash", (1, 3_000_000), r"would take 27 MB of memory, above the limit of 20:"),  # 24 of them point to rows
        ("center", (1, 2_000_000), r"resized for this model, has 32 x 64000000 pixels"),
        ("center", (2_000_000, 1), r"resized for this model, has 64000000 x 32 pixels"),
    ],
)
def test_threads_are_refused_before_they_are_decoded(crop: str, size: tuple[int, int], why: str, monkeypatch) -> None:
    """An image of one column or row: little of it is pixels, or little of it is its size once it is resized."""
    monkeypatch.setattr(image_file, "MAX_DECODED_BYTES", 20_000_000)
    data = io.BytesIO()
    Image.new("L", size).save(data, "PNG", compress_level=1)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    spec = ImagePreprocessing(32, 32, 32, "bicubic", crop, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(InputError, match=why):
        ImageEncoder(spec)(data.getvalue())
