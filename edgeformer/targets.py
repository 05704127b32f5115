"""The targets: what a converter is, what lowering gives back, and the literal table of converters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeformer.interrupts import insistent_interrupts
from edgeformer.precision import Precision
from edgeformer.programs import MATRIX_PRODUCTS, SUMS, Program
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.choices import check_choice
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.manifest import Requirements
from edgeformer_runtime.model_files import check_model_files
from edgeformer_runtime.speech_spec import HOST_STATE, PROGRAM_STATE

# Names, not imports: the core never imports the converters, and a target's tools load only when they are asked for.
TARGETS: dict[str, str] = {
    "litert": "edgeformer_converters.litert:CONVERTER",
    "coreml": "edgeformer_converters.coreml:CONVERTER",
    "executorch": "edgeformer_converters.executorch:CONVERTER",
    "onnx": "edgeformer_converters.onnx:CONVERTER",
}

# What each converter realises; of Core ML for the newest release of iOS that it knows.
PRECISIONS_OF_TARGET: dict[str, tuple[str, ...]] = {
    "litert": ("fp32", "fp16", "dynamic-int8", "static-int8", "weight-int8", "int4", "mixed"),
    "coreml": ("fp32", "fp16", "dynamic-int8", "palette6", "palette4", "int4", "mixed"),
    "executorch": ("fp32", "fp16", "dynamic-int8", "static-int8", "int4", "mixed"),
    "onnx": ("fp32", "fp16", "dynamic-int8", "static-int8", "weight-int8", "int4", "mixed"),
}

ALIASES: dict[str, tuple[str, ...]] = {
    "tflite": ("litert",),
    "tensorflowlite": ("litert",),
    "android": ("litert",),
    "mlpackage": ("coreml",),
    "apple": ("coreml",),
    "ios": ("coreml",),
    "pte": ("executorch",),
    "ort": ("onnx",),
    "onnxruntime": ("onnx",),
}
"""What the field calls them."""

MACOS_OF_IOS = {16: 13, 17: 14, 18: 15}
"""Releases with the same operators. iOS 18 brought fused attention, states, functions that share weights, and int4."""

COREML_FOR_IOS = "edgeformer_converters.coreml:CoreMLConverter"

# Core ML itself runs on macOS only; elsewhere the converted program is executed by our interpreter of its language.
REFERENCE_ENGINES: dict[str, str] = {"coreml": "edgeformer_converters.mil_reference:MilReferenceEngine"}

# Who keeps a decoder's self-attention cache. LiteRT drops a program's state without a word, and a host that writes one
# row is as fast; ExecuTorch and Core ML keep it in place.
DECODER_STATE: dict[str, str] = {
    "litert": HOST_STATE,
    "onnx": HOST_STATE,
    "executorch": PROGRAM_STATE,
    "coreml": PROGRAM_STATE,
}

# How one token's query meets the caches of a speech decoder. At every call XNNPACK copies the second matrix of a
# product into an order of its own, and here that is the whole cache: in LiteRT sums take three quarters of the time.
TOKEN_PRODUCTS: dict[str, str] = {
    "litert": SUMS,
    "onnx": MATRIX_PRODUCTS,
    "executorch": MATRIX_PRODUCTS,
    "coreml": MATRIX_PRODUCTS,
}

# The columns of weights of 4 bits that share a scale, None: a whole row. XNNPACK's blocks of 32 take twice as long as
# its rows, ONNX Runtime has blocks only. Core ML's have offsets, and are a precision of its own (`coreml_weights`).
INT4_BLOCKS: dict[str, int | None] = {"litert": None, "executorch": None, "onnx": 32}

# What rounding the states of programs costs at any precision, relative to the largest output: Core ML has them in
# float16 only. Of tiny.en at fp32, whose encoder differs by 2e-7, the steps' logits differ by 1.6e-4.
STATE_ROUNDING: dict[str, float] = {"coreml": 2**-11}

# The lengths of sound that speech programs are made for, in seconds, where nobody asks for others. Of tiny.en in
# LiteRT at int8 each costs some 40 s of conversion, 1.9 MB of file and 3 MB of memory; finer steps gain on short clips.
AUDIO_SECONDS: dict[str, tuple[float, ...]] = {
    # Programs share one cache of weights.
    "litert": (2.5, 5.0, 7.5, 12.5, 20.0, 30.0),
    # Each session packs its own copy of the weights.
    "onnx": (5.0, 10.0, 20.0, 30.0),
    # Each length is lowered on its own, which takes most of a conversion's time.
    "executorch": (5.0, 10.0, 20.0, 30.0),
    "coreml": (5.0, 10.0, 20.0, 30.0),
}


@dataclass(frozen=True)
class Lowered:
    """Model files that a converter wrote.

    Attributes:
        folder: where the files are.
        files: names inside `folder`, with `/` for nested files (a Core ML package is a folder).
        entries: for each program's name the file, or package folder, and the entry in it that run the program.
        operators: how often each operator of the target's own vocabulary occurs.
        partitions: how many pieces the delegate got, or None where the target has no delegate to count.
    """

    folder: Path
    files: tuple[str, ...]
    entries: dict[str, tuple[str, str]]
    operators: dict[str, int]
    partitions: int | None


class Converter(Protocol):
    """Lowers programs to one target's files."""

    target: str
    precisions: tuple[str, ...]
    requires: Requirements
    quantizes_files: bool
    """Whether int8 is made of the fp32 files; otherwise of the programs."""
    packages: tuple[str, ...]
    """Distributions whose versions go into the manifest's toolchain."""

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What this target cannot do with these programs, one sentence each, before any expensive work."""

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Lower the programs as they are into the empty folder."""

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Lower the programs in another precision, from the fp32 files where the target's tool starts there."""


def check_ios(ios: int) -> None:
    """Refuse a release of iOS that Core ML's converter does not know.

    Raises:
        InputError: it is none of `MACOS_OF_IOS`.
    """
    if ios not in MACOS_OF_IOS:
        raise InputError(f"unknown release iOS {ios}: expected one of {', '.join(map(str, MACOS_OF_IOS))}")


def check_target(target: str) -> None:
    """Refuse an unknown target by name, before anything is loaded.

    Raises:
        InputError: it is none of `TARGETS`.
    """
    check_choice(target, TARGETS, "target", ALIASES)


def converter_for(target: str, min_ios: int | None = None) -> Converter:
    """The converter of a target; of Core ML the one for an older release of iOS, if one is given.

    Raises:
        InputError: an unknown target, or release; the message lists those that exist.
    """
    check_target(target)
    if target == "coreml" and min_ios is not None:
        return cast(Callable[[int], Converter], _load(COREML_FOR_IOS))(min_ios)
    return cast(Converter, _load(TARGETS[target]))


def verification_engine(bundle: Bundle) -> Engine | None:
    """The engine that verification needs in place of the target's own, or None where its own runs on this machine."""
    target = bundle.manifest.target
    if target not in REFERENCE_ENGINES or sys.platform == "darwin":
        return None
    try:
        make = cast(Callable[[Bundle], Engine], _load(REFERENCE_ENGINES[target]))
    except ImportError as error:
        raise EngineError(
            f"verifying a {target} bundle here needs {error.name}: pip install 'edgeformer[{target}]'"
        ) from None
    check_model_files(bundle)
    return make(bundle)


def _load(name: str) -> object:
    module, attribute = name.split(":")
    with insistent_interrupts():  # some tools try what is there when they are imported, and catch everything
        return getattr(import_module(module), attribute)
