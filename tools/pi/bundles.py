"""The bundles that the emulated Pi runs: of a text, an image and a speech model, made here and kept in the cache."""

from __future__ import annotations

from pathlib import Path

from edgeformer.foreign_code import quiet_tools
from tests.checkpoint_factory import save_whisper
from tests.runtime.tiny_bundle import make_litert
from tools.calibration_images import write_images
from tools.code_key import CONVERSION, code_key
from tools.conversions import Model, kept
from tools.pi.convolutions import write_convolutions

# Random weights, as an emulator takes minutes for published ones. One layer of each half: lowering is what takes time
# here, and more of the same has no other operators.
SPEECH = Model(
    "speech",
    ("fp32", "dynamic-int8"),
    lambda folder: str(save_whisper(folder, multilingual=False, encoder_layers=1, decoder_layers=1)),
    audio_seconds=(2.0,),
)
INTENTS = Model("intents", ("fp32", "dynamic-int8"), lambda _: "clinc150-mobilebert")
THINGS = Model("things", ("fp32", "dynamic-int8", "static-int8"), lambda _: "cifar10-tinyvit", takes_images=True)
MODELS = (SPEECH, INTENTS, THINGS)
"""The two models of the zoo, and a narrow Whisper with everything that a published one has."""

TINY_LITERT = "tiny.litert.fp32"
CONVOLUTIONS = "convolutions.litert.static-int8"


def convolutions() -> Path:
    """The bundle of int8 convolutions, made where this state of the code has not made it yet."""

    def make(made: Path, scratch: Path) -> None:
        write_convolutions(made / CONVOLUTIONS, write_images(scratch / "images"), scratch)

    return kept("convolutions", code_key("", (*CONVERSION, "tools/pi", "tools")), make) / CONVOLUTIONS


def tiny_litert() -> Path:
    """The LiteRT bundle of the runtime's own tests, made where this state of the code has not made it yet."""

    def make(made: Path, scratch: Path) -> None:  # noqa: ARG001
        with quiet_tools():
            make_litert(made / TINY_LITERT)

    return kept("tiny", code_key("", (*CONVERSION, "tests/runtime")), make) / TINY_LITERT
