"""CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images") as a zip of small images."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from edgeformer_runtime.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the public data set's labels."""

IMAGE_SIZE = 32


@dataclass(frozen=True)
class LabelledImages:
    """images (N, 3, 32, 32) uint8, labels (N,) int64, both sorted by class and file name."""

    images: Tensor
    labels: Tensor

    def split(self, share: float) -> tuple[LabelledImages, LabelledImages]:
        """Cut the last `share` of each class off: (kept, cut off)."""
        held = torch.zeros(len(self.labels), dtype=torch.bool)
        for label in range(len(CLASSES)):
            rows = (self.labels == label).nonzero()[:, 0]
            held[rows[len(rows) - round(share * len(rows)) :]] = True
        return (
            LabelledImages(self.images[~held], self.labels[~held]),
            LabelledImages(self.images[held], self.labels[held]),
        )


def load_cifar10(path: Path, split: str) -> LabelledImages:
    """Read `<split>/<class>/<name>` of a zip.

    Args:
        path: a zip whose images are 32 by 32 pixels, in any format that Pillow reads.
        split: "train" or "test".

    Raises:
        InputError: no such zip, or one with other contents.
    """
    images, labels = [], []
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                parts = PurePosixPath(name).parts
                if len(parts) == 3 and parts[0] == split and parts[1] in CLASSES:
                    with Image.open(io.BytesIO(archive.read(name))) as image:
                        images.append(np.asarray(image.convert("RGB")))
                    labels.append(CLASSES.index(parts[1]))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise InputError(f"{path} is not a zip of images: {error}") from None
    if set(labels) != set(range(len(CLASSES))) or any(i.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) for i in images):
        raise InputError(
            f"{path}: expected {split}/<class>/<image> of 32 by 32 pixels for each of {', '.join(CLASSES)}"
        )
    order = np.argsort(labels, kind="stable")
    pixels = torch.from_numpy(np.stack(images)[order]).permute(0, 3, 1, 2).contiguous()
    return LabelledImages(pixels, torch.tensor(labels)[torch.from_numpy(order)])
