"""Images to calibrate with where no photographs are at hand."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

from PIL import Image, ImageOps

from edgeformer.tasks.image import images
from tools.code_key import REPOSITORY

PHOTOS = REPOSITORY / "edgeformer" / "zoo" / "images"


def write_images(folder: Path) -> Path:
    """The drawn samples and the zoo's photos in all eight orientations: enough for ranges that let the gates pass."""
    folder.mkdir()
    originals = [*images(), *(path.read_bytes() for path in sorted(PHOTOS.glob("*.png")))]
    for index, original in enumerate(originals):
        with Image.open(io.BytesIO(original)) as image:
            for turned, mirrored in product(range(4), (False, True)):
                picture = image.convert("RGB").rotate(90 * turned, expand=True)
                (ImageOps.mirror(picture) if mirrored else picture).save(folder / f"{index:02}{turned}{mirrored:d}.png")
    return folder
