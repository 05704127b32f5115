"""Engines that run a bundle's programs: a literal table from a bundle's target to the engine that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import load_attribute

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
