"""Conversions that builds and tests share, each made once for a state of the code and kept in the cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from tools import debian
from tools.calibration_images import write_images
from tools.code_key import CONVERSION, code_key

FOLDER = "conversions"
"""In the cache."""

MAKERS = (
    *CONVERSION,
    "tools/conversions.py",
    "tools/calibration_images.py",
    "tests/checkpoint_factory.py",
    "tests/edgeformer/compress/tiny.py",
)
"""The code that decides what a bundle is."""


@dataclass(frozen=True)
class Model:
    """A checkpoint and what is made of it.

    Attributes:
        name: of the bundles.
        precisions: a bundle each, all of one conversion.
        source: gives the checkpoint's id, or the path of one that it writes into a folder.
        seq_lens: of text.
        audio_seconds: of speech alone, which `convert` insists on.
        takes_images: it is calibrated, as static-int8 needs it.
        target: of the bundles.
    """

    name: str
    precisions: tuple[str, ...]
    source: Callable[[Path], str]
    seq_lens: tuple[int, ...] = (32,)
    audio_seconds: tuple[float, ...] | None = None
    takes_images: bool = False
    target: str = "litert"


# For the emulated older CPU, the Android app and the benchmark's tests.
INTENTS_ONNX = Model("intents", ("fp32", "dynamic-int8"), lambda _: "clinc150-mobilebert", target="onnx")
THINGS_ONNX = Model(
    "things",
    ("fp32", "dynamic-int8", "static-int8"),
    lambda _: "cifar10-tinyvit",
    takes_images=True,
    target="onnx",
)


def bundles(models: Sequence[Model]) -> dict[Path, str]:
    """The models' folders with their precisions, made where this state of the code has not made them yet.

    Raises:
        SetupError: a gate of a conversion failed.
    """
    found: dict[Path, str] = {}
    for model in models:
        stem = f"{model.name}.{model.target}"
        # What is calibrated is another conversion, whatever its precisions.
        name = "-".join((stem, *model.precisions, *(("images",) if model.takes_images else ())))
        folder = kept(name, code_key(f"{model.seq_lens}", MAKERS), _making(model))
        found |= {folder / f"{stem}.{precision}": precision for precision in model.precisions}
    return found


def kept(name: str, key: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder that `make` fills, given it and a scratch folder, kept in the cache under a state of the code.

    One process at a time makes it, beside its place, and renames it into place; what other states made goes.

    Args:
        name: of what is made.
        key: of the state, from `code_key`.
        make: fills the folder.
    """
    cached = debian.cache_folder() / FOLDER / name
    cached.mkdir(parents=True, exist_ok=True)
    with debian.locked(cached / "lock"):
        folder = cached / key
        if not folder.is_dir():
            for old in cached.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=".convert-", dir=cached) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                make(made, Path(scratch))
                made.rename(folder)
    return folder


def _making(model: Model) -> Callable[[Path, Path], None]:
    def make(made: Path, scratch: Path) -> None:
        print(f"Converting {model.name} to {model.target} at {', '.join(model.precisions)}...", flush=True)
        options = ConvertOptions(
            model.source(scratch / "checkpoint"),
            made,
            targets=(model.target,),
            precisions=model.precisions,
            seq_lens=model.seq_lens,
            name=model.name,
            calibration=write_images(scratch / "images") if model.takes_images else None,
            audio_seconds=model.audio_seconds,
        )
        for converted in convert(options):
            if not converted.ok:
                raise debian.SetupError(f"{converted.path.name}: {'; '.join(converted.problems)}")

    return make
