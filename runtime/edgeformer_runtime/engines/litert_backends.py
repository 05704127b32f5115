"""What runs a LiteRT bundle here: ai-edge-litert's CompiledModel or interpreter, tflite-runtime's or TensorFlow's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import load_attribute

CHOICE = "EDGEFORMER_LITERT"
"""The environment variable that names one of `BACKENDS`; without it the first that is installed runs."""


@dataclass(frozen=True)
class Backend:
    """One way to run a `.tflite`.

    Attributes:
        packages: the distributions that bring it, of which one is enough.
        entry: "module:attribute" of what runs models.
        compiled: whether that is CompiledModel; else a class with the interface of TensorFlow Lite's Interpreter.
        int8_since: the first release, as far as it was tried, that gives int8 weights their scales; None: none does.
    """

    packages: tuple[str, ...]
    entry: str
    compiled: bool = False
    int8_since: tuple[int, ...] | None = (0,)

    def computes_int8(self, version: str) -> bool:
        """Whether linear layers with int8 weights, whose scales are per channel, are computed right.

        tflite-runtime 2.14 takes those scales for 0 and answers with the biases alone, without an error.
        """
        return self.int8_since is not None and tuple(map(int, re.findall(r"\d+", version)[:3])) >= self.int8_since

    def installed(self) -> tuple[str, str] | None:
        """The name and version of the package that is installed, or None."""
        for package in self.packages:
            try:
                return package, version(package)
            except PackageNotFoundError:
                continue
        return None


# The best first. ai-edge-litert has no wheels for 32-bit ARM; tflite-runtime has them, for Python up to 3.11, and takes
# 2.5 to 6 times as long for the same files. TensorFlow is there for whoever has it anyway.
BACKENDS: dict[str, Backend] = {
    "compiled-model": Backend(("ai-edge-litert",), "ai_edge_litert.compiled_model:CompiledModel", compiled=True),
    "interpreter": Backend(("ai-edge-litert",), "ai_edge_litert.interpreter:Interpreter"),
    "tflite-runtime": Backend(("tflite-runtime",), "tflite_runtime.interpreter:Interpreter", int8_since=None),
    "tensorflow": Backend(
        ("tensorflow", "tensorflow-cpu"), "tensorflow.lite.python.interpreter:Interpreter", int8_since=(2, 21)
    ),
}


def open_litert(bundle: Bundle, threads: int) -> Engine:
    """Open the engine of a LiteRT bundle, over what is installed or what `EDGEFORMER_LITERT` names.

    Raises:
        InputError: the variable names no backend.
        EngineError: no backend, or not the chosen one, is installed; or it cannot open the model.
    """
    name, package, runner = _chosen()
    backend = BACKENDS[name]
    described = " ".join(package)
    if bundle.manifest.recipe.weights == "int8" and not backend.computes_int8(package[1]):
        raise EngineError(
            f"{described} does not know the scales of int8 weights and would answer wrongly: take a bundle at fp32 or"
            " fp16, or install ai-edge-litert"
        )
    if backend.compiled:
        from edgeformer_runtime.engines.litert import LiteRTEngine

        return LiteRTEngine(bundle, threads)
    from edgeformer_runtime.engines.litert_interpreter import InterpreterEngine

    suffix = " (Interpreter)" if name == "interpreter" else ""
    return InterpreterEngine(bundle, threads, runner, described + suffix)


def _chosen() -> tuple[str, tuple[str, str], Any]:
    """The backend's name, its package and version, and what it runs models with."""
    wanted = os.environ.get(CHOICE)
    if wanted and wanted not in BACKENDS:
        guess = did_you_mean(wanted, BACKENDS)
        raise InputError(f"{CHOICE}: {guess}expected one of {', '.join(BACKENDS)}, found {wanted!r}")
    for name, backend in BACKENDS.items():
        package = backend.installed()
        if package is None or wanted not in (None, "", name):
            continue
        try:
            return name, package, load_attribute(backend.entry)
        except (ImportError, AttributeError) as error:  # ai-edge-litert before 2 has no CompiledModel
            if wanted:
                raise EngineError(f"{CHOICE}={wanted}: {' '.join(package)} does not have it: {error}") from error
    if wanted:
        raise EngineError(f"{CHOICE}={wanted}: expected the package {BACKENDS[wanted].packages[0]}: install it")
    raise EngineError(
        "a bundle for litert needs the package ai-edge-litert, or on 32-bit ARM tflite-runtime:"
        " pip install edgeformer-runtime"
    )
