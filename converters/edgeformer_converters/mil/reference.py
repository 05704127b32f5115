"""Executes Core ML programs in torch, on any system: the reference that verification uses where Core ML is not.

It checks graph, weights, compression, shapes, types and rounding of a package as it was written. What it cannot check
is `NOT_COVERED`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgeformer_converters.mil.interpreter import MilInterpreter as MilInterpreter
from edgeformer_converters.mil.program import Function, read_program
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import EngineError, InputError

NOT_COVERED = (
    "The reference computes each operator in float32 and rounds its result to the declared type: it covers neither the "
    "Neural Engine's and GPU's own arithmetic nor which of them Core ML places an operator on."
)


def run(
    path: str | os.PathLike[str], inputs: Mapping[str, NDArray[Any]], function: str = "main"
) -> dict[str, NDArray[Any]]:
    """Execute one function of any `.mlpackage` once, whoever made it; see `MilInterpreter.run`.

    Args:
        path: the package.
        inputs: one array per input of the function.
        function: its name; "main" where the package has only one.

    Raises:
        InputError: no such package, function or input.
        EngineError: an operator that this interpreter does not know.
    """
    functions = read_program(path)
    if function not in functions:
        raise InputError(f"{path} has no function {function!r}: expected one of {', '.join(functions)}")
    return MilInterpreter(functions[function]).run(inputs)


class MilReferenceEngine:
    """Runs a Core ML bundle without Core ML; an engine of the runtime, for verification and not for speed.

    States last from call to call in a decoder, each of which has its own; `run` starts every program with zeros.
    """

    name = "coreml"
    not_covered = NOT_COVERED

    def __init__(self, bundle: Bundle) -> None:
        """Open a bundle of the target coreml; a program is parsed when it first runs."""
        self.executed_by = f"mil-reference (coremltools {version('coremltools')})"
        self._bundle: Bundle | None = bundle
        self._programs = {program.name: program for program in bundle.manifest.programs}
        self._functions: dict[str, dict[str, Function]] = {}
        self._interpreters: dict[str, MilInterpreter] = {}
        self._lock = Lock()

    def run(self, program: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run one program of the bundle; see `edgeformer_runtime.engines.base.Engine`."""
        return self.run_with(program, inputs, {})

    def run_with(
        self, program: str, inputs: Mapping[str, NDArray[Any]], states: dict[str, Tensor]
    ) -> dict[str, NDArray[Any]]:
        """Run one program on states that it changes; see `MilInterpreter.run`.

        Raises:
            EngineError: an output is NaN or infinity after an operator went beyond float16; the message names it.
        """
        if program not in self._programs:
            raise InputError(f"unknown program {program!r}: expected one of {', '.join(self._programs)}")
        with self._lock:
            if program not in self._interpreters:
                self._interpreters[program] = self._interpreter(program)
            interpreter = self._interpreters[program]
            outputs, overflow = interpreter.run(inputs, states), interpreter.overflow
        lost = [name for name, each in outputs.items() if not np.isfinite(each).all()]
        if lost and overflow is not None:
            raise EngineError(f"{lost[0]} holds NaN or infinity: {overflow}; convert to fp32")
        return outputs

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder with states of its own; see `edgeformer_runtime.engines.base.Engine`."""
        return decoder_over(_States(self).run, bucket, spec)

    def _interpreter(self, program: str) -> MilInterpreter:
        if self._bundle is None:
            raise EngineError("the engine is closed: load the bundle again")
        specification = self._programs[program]
        if specification.file not in self._functions:
            self._functions[specification.file] = read_program(self._bundle.path(specification.file))
        return MilInterpreter(self._functions[specification.file][specification.entry])

    def close(self) -> None:
        """Release the model. A second call does nothing."""
        with self._lock:
            self._bundle = None
            self._functions.clear()
            self._interpreters.clear()


class _States:
    """What a decoder's programs keep from call to call: functions share states by name, as in an MLState."""

    def __init__(self, engine: MilReferenceEngine) -> None:
        self._engine = engine
        self._states: dict[str, Tensor] = {}

    def run(self, program: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """As `Engine.run`."""
        return self._engine.run_with(program, inputs, self._states)
