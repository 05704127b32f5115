"""The bundles that the emulated Pi runs: of a text, an image and a speech model, made here and kept in the cache."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from PIL import Image, ImageOps

from build_tools import debian
from build_tools.code_key import REPOSITORY, code_key
from edgeformer import samples
from edgeformer.convert import convert
from edgeformer.convert_options import ConvertOptions
from tests.checkpoint_factory import save_whisper

PHOTOS = REPOSITORY / "edgeformer" / "zoo" / "images"


@dataclass(frozen=True)
class Model:
    """A checkpoint and what is made of it.

    Attributes:
        name: of the bundles.
        precisions: a bundle each.
        source: gives the checkpoint's id, or the path of one that it writes into a folder.
        seq_lens: of text.
        takes_images: it is calibrated, as static-int8 needs it.
    """

    name: str
    precisions: tuple[str, ...]
    source: Callable[[Path], str]
    seq_lens: tuple[int, ...] = (32,)
    takes_images: bool = False


MODELS = (
    Model("intents", ("fp32", "dynamic-int8"), lambda _: "clinc150-mobilebert"),
    Model("things", ("fp32", "dynamic-int8", "static-int8"), lambda _: "cifar10-tinyvit", takes_images=True),
    # Random weights, as an emulator takes minutes for published ones.
    Model("speech", ("fp32", "dynamic-int8"), lambda folder: str(save_whisper(folder, multilingual=False))),
)
"""The two models of the zoo, and a Whisper of two narrow layers with everything that a published one has."""

TARGET = "litert"


def bundles() -> dict[Path, str]:
    """The bundles' folders with their precisions, made where this state of the code has not made them yet.

    Raises:
        SetupError: a gate of a conversion failed.
    """
    return {path: precision for model in MODELS for path, precision in _converted(model).items()}


def _converted(model: Model) -> dict[Path, str]:
    cached = debian.cache_folder() / "pi-bundles"
    cached.mkdir(parents=True, exist_ok=True)
    with debian.locked(cached / f"{model.name}.lock"):
        folder = cached / f"{model.name}-{code_key(repr((model.name, model.precisions, model.seq_lens)))}"
        if not folder.is_dir():
            for old in cached.glob(f"{model.name}-*"):
                shutil.rmtree(old)
            _convert(model, folder)
    return {folder / f"{model.name}.{TARGET}.{precision}": precision for precision in model.precisions}


def _convert(model: Model, folder: Path) -> None:
    print(f"Converting {model.name} at {', '.join(model.precisions)}...", flush=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder.parent) as scratch:
        made = Path(scratch) / "bundles"
        options = ConvertOptions(
            model.source(Path(scratch) / "checkpoint"),
            made,
            targets=(TARGET,),
            precisions=model.precisions,
            seq_lens=model.seq_lens,
            name=model.name,
            calibration=_write_images(Path(scratch) / "images") if model.takes_images else None,
            audio_seconds=(2.0,),
        )
        for converted in convert(options):
            if not converted.ok:
                raise debian.SetupError(f"{converted.path.name}: {'; '.join(converted.problems)}")
        made.rename(folder)


def _write_images(folder: Path) -> Path:
    """The drawn samples and the zoo's photos in all eight orientations: enough for ranges that let the gates pass."""
    folder.mkdir()
    originals = [*samples.images(), *(path.read_bytes() for path in sorted(PHOTOS.glob("*.png")))]
    for index, original in enumerate(originals):
        with Image.open(io.BytesIO(original)) as image:
            for turned, mirrored in product(range(4), (False, True)):
                picture = image.convert("RGB").rotate(90 * turned, expand=True)
                (ImageOps.mirror(picture) if mirrored else picture).save(folder / f"{index:02}{turned}{mirrored:d}.png")
    return folder
