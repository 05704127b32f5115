"""The bundles that the emulated Pi runs: of a text, an image and a speech model, made here and kept in the cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from build_tools import debian
from build_tools.code_key import code_key
from edgeformer.convert import convert
from edgeformer.convert_options import ConvertOptions
from edgeformer_converters.quiet import quiet_tools
from runtime.pi.calibration_images import write_images
from runtime.pi.convolutions import write_convolutions
from tests.checkpoint_factory import save_whisper
from tests.runtime.tiny_bundle import make_litert


@dataclass(frozen=True)
class Model:
    """A checkpoint and what is made of it.

    Attributes:
        name: of the bundles.
        precisions: a bundle each.
        source: gives the checkpoint's id, or the path of one that it writes into a folder.
        seq_lens: of text.
        takes_images: it is calibrated, as static-int8 needs it.
        target: of the bundles.
    """

    name: str
    precisions: tuple[str, ...]
    source: Callable[[Path], str]
    seq_lens: tuple[int, ...] = (32,)
    takes_images: bool = False
    target: str = "litert"


MODELS = (
    # Random weights, as an emulator takes minutes for published ones.
    Model("speech", ("fp32", "dynamic-int8"), lambda folder: str(save_whisper(folder, multilingual=False))),
    Model("intents", ("fp32", "dynamic-int8"), lambda _: "clinc150-mobilebert"),
    Model("things", ("fp32", "dynamic-int8", "static-int8"), lambda _: "cifar10-tinyvit", takes_images=True),
)
"""The two models of the zoo, and a Whisper of two narrow layers with everything that a published one has."""

TINY_LITERT = "tiny.litert.fp32"
CONVOLUTIONS = "convolutions.litert.static-int8"


def bundles(models: Sequence[Model] = MODELS) -> dict[Path, str]:
    """The models' folders with their precisions, made where this state of the code has not made them yet.

    Raises:
        SetupError: a gate of a conversion failed.
    """
    return {
        folder / f"{model.name}.{model.target}.{precision}": precision
        for model in models
        for folder in (_kept(f"{model.name}.{model.target}", f"{model.precisions} {model.seq_lens}", _making(model)),)
        for precision in model.precisions
    }


def convolutions() -> Path:
    """The bundle of int8 convolutions, made where this state of the code has not made it yet."""

    def make(made: Path, scratch: Path) -> None:
        write_convolutions(made / CONVOLUTIONS, write_images(scratch / "images"), scratch)

    return _kept("convolutions", code_key("", ("runtime/pi",)), make) / CONVOLUTIONS


def tiny_litert() -> Path:
    """The LiteRT bundle of the runtime's own tests, made where this state of the code has not made it yet."""

    def make(made: Path, scratch: Path) -> None:  # noqa: ARG001
        with quiet_tools():
            make_litert(made / TINY_LITERT)

    return _kept("tiny", code_key("", ("tests/runtime",)), make) / TINY_LITERT


def _kept(stem: str, arguments: str, make: Callable[[Path, Path], None]) -> Path:
    """The folder that `make` fills, given it and a scratch folder, kept in the cache for a state of the code."""
    cached = debian.cache_folder() / "pi-bundles"
    cached.mkdir(parents=True, exist_ok=True)
    with debian.locked(cached / f"{stem}.lock"):
        folder = cached / f"{stem}-{code_key(arguments)}"
        if not folder.is_dir():
            for old in cached.glob(f"{stem}-*"):
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
            audio_seconds=(2.0,),
        )
        for converted in convert(options):
            if not converted.ok:
                raise debian.SetupError(f"{converted.path.name}: {'; '.join(converted.problems)}")

    return make
