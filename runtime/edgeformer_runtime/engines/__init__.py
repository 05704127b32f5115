"""Engines: what one is, and a literal table from a bundle's target to the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import load_attribute

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, SpeechDecoder

Tensor: TypeAlias = "NDArray[np.generic]"


class Engine(Protocol):
    """Runs a bundle's programs. Calls from several threads are serialised inside the engine."""

    name: str
    """The engine's key in the table of engines: "litert", "onnx", "executorch", "coreml"."""

    executed_by: str
    """What really executes the program, with its version: "ai-edge-litert 2.3.0"."""

    not_covered: str | None
    """What an answer of this engine cannot show about the target, in a sentence; None for the target's own engine."""

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program.

        Args:
            program: a program's name in the manifest.
            inputs: one array per input of the program, with the dtype and shape that the manifest states.

        Returns:
            One array per output of the program, by name. The arrays are the caller's.

        Raises:
            InputError: an unknown program, or an input that is missing, superfluous or of another dtype or shape.
        """

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder over a bucket's programs, with caches of its own; of text there is nothing to encode.

        Several may be open at once, and each holds the caches of its bucket: close those that are not needed. None
        works after the engine is closed.
        """

    def close(self) -> None:
        """Release the model. A second call does nothing."""


ENGINES: dict[str, str] = {
    "litert": "edgeformer_runtime.engines.litert_backends:open_litert",
    "onnx": "edgeformer_runtime.engines.onnx:OnnxEngine",
    "executorch": "edgeformer_runtime.engines.executorch:ExecuTorchEngine",
    "coreml": "edgeformer_runtime.engines.coreml:CoreMLEngine",
}

# What installs each engine's packages.
INSTALL: dict[str, str] = {
    "litert": "pip install edgeformer-runtime",
    "onnx": "pip install 'edgeformer-runtime[onnx]'",
    "executorch": "edgeformer-runtime build-executorch, or pip install 'edgeformer-runtime[executorch]'",
    "coreml": "pip install 'edgeformer-runtime[coreml]'",
}

MAX_THREADS = 1024


def open_engine(bundle: Bundle, threads: int = 1) -> Engine:
    """Open the engine of a bundle's target.

    Args:
        bundle: an open bundle, which has to stay open as long as the engine.
        threads: how many threads the engine may use.

    Raises:
        BundleError: a model file is one that "Model files" of BUNDLE.md refuses.
        EngineError: its package is not installed, or it does not run here; the message says what to do.
        InputError: `threads` is no positive integer.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads: expected 1 to {MAX_THREADS}, found {threads!r}")
    from edgeformer_runtime.engines.checked import CheckedEngine  # it imports this module

    target = bundle.manifest.target
    try:
        make = cast(Callable[[Bundle, int], Engine], load_attribute(ENGINES[target]))
        if bundle.rows is None:
            from edgeformer_runtime.model_files import check_model_files

            bundle.rows = check_model_files(bundle)
        engine = make(bundle, threads)
        if isinstance(engine, CheckedEngine):
            engine.rows = bundle.rows
        return engine
    except ImportError as error:
        raise EngineError(f"a bundle for {target} needs the package {error.name}: {INSTALL[target]}") from error
