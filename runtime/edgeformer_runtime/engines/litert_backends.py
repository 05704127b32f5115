"""What runs a LiteRT bundle here: ai-edge-litert's CompiledModel or interpreter, tflite-runtime's or TensorFlow's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.process import held_back
from edgeformer_runtime.registry import did_you_mean, load_attribute

CHOICE = "EDGEFORMER_LITERT"
"""The environment variable that names one of `BACKENDS`; without it the first that is installed runs."""


@dataclass(frozen=True)
class Backend:
    """One way to run a `.tflite`.

    Attributes:
        packages: the distributions that bring it, of which one is enough.
        entry: "module:attribute" of what runs models.
        compiled: whether that is CompiledModel; else a class with the interface of TensorFlow Lite's Interpreter.
        stated_version: "module:attribute" of the version, where a package states it: importlib.metadata, which is
            asked otherwise, takes 10 ms to import.
        int8_since: the first release, as far as it was tried, that gives int8 weights their scales; None: none does.
    """

    packages: tuple[str, ...]
    entry: str
    compiled: bool = False
    stated_version: str | None = None
    int8_since: tuple[int, ...] | None = (0,)

    def computes_int8(self, version: str) -> bool:
        """Whether linear layers with int8 weights, whose scales are per channel, are computed right.

        tflite-runtime 2.14 takes those scales for 0 and answers with the biases alone, without an error.
        """
        return self.int8_since is not None and tuple(map(int, re.findall(r"\d+", version)[:3])) >= self.int8_since

    def installed(self) -> tuple[str, str] | None:
        """The name and version of the package that is installed, or None."""
        if self.stated_version is not None:
            try:
                return self.packages[0], load_attribute(self.stated_version)
            except (ImportError, AttributeError):  # not installed, or too old to state it
                pass
        from importlib.metadata import PackageNotFoundError, version

        for package in self.packages:
            try:
                return package, version(package)
            except PackageNotFoundError:
                continue
        return None


_LITERT = "ai_edge_litert:__version__"

# The best first. ai-edge-litert has no wheels for 32-bit ARM; tflite-runtime has them, for Python up to 3.11, and takes
# 2.5 to 6 times as long for the same files. TensorFlow is there for whoever has it anyway.
BACKENDS: dict[str, Backend] = {
    "compiled-model": Backend(
        ("ai-edge-litert",), "ai_edge_litert.compiled_model:CompiledModel", compiled=True, stated_version=_LITERT
    ),
    "interpreter": Backend(("ai-edge-litert",), "ai_edge_litert.interpreter:Interpreter", stated_version=_LITERT),
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
    name, package, runner = _chosen(len(bundle.manifest.all_programs))
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

    suffix = " (Interpreter)" if name == "interpreter" else ""
    return InterpreterEngine(bundle, threads, runner, described + suffix)


def _chosen(programs: int) -> tuple[str, tuple[str, str], Any]:
    """The backend's name, its package and version, and what it runs models with.

    CompiledModel is for programs that share their weights. One alone gives the same answers through the interpreter,
    in no more time, and 40 ms of CPU earlier: the first answer of CompiledModel waits for its import, for an
    environment and its accelerators, and for a second interpreter that looks at the file.
    """
    wanted = os.environ.get(CHOICE)
    if wanted and wanted not in BACKENDS:
        guess = did_you_mean(wanted, BACKENDS)
        raise InputError(f"{CHOICE}: {guess}expected one of {', '.join(BACKENDS)}, found {wanted!r}")
    for name in sorted(BACKENDS, key=lambda name: programs == 1 and BACKENDS[name].compiled):
        backend = BACKENDS[name]
        if wanted not in (None, "", name) or (package := backend.installed()) is None:
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


# The plain interpreter of TensorFlow Lite, under whichever name it is installed.


# What every version says of an operator that it does not have, or has in an older version only.
_MISSING = re.compile(r"builtin opcode '(?P<operator>\w+)' version '(?P<version>\d+)'")


class Interpreter(Protocol):
    """`Interpreter` of ai_edge_litert, tflite_runtime and tensorflow.lite, as far as it is used."""

    def __init__(self, model_path: str, *, num_threads: int) -> None:
        """Open and check a model. ValueError: it is none, or has an operator that is not known."""

    def get_signature_list(self) -> Mapping[str, Mapping[str, list[str]]]:
        """The names of each signature's "inputs" and "outputs"."""

    def get_signature_runner(self, signature_key: str) -> Any:
        """What runs a signature on arrays by name."""


class InterpreterEngine(CheckedEngine):
    """Runs a LiteRT bundle on the CPU, through XNNPACK where the interpreter was built with it.

    What a program needs is made when it first runs. Each has its own packed copy of its weights, and the caches of
    speech go in and out with each token: CompiledModel saves both.
    """

    name = "litert"

    def __init__(self, bundle: Bundle, threads: int, interpreter: type[Interpreter], executed_by: str) -> None:
        """Open the bundle's model.

        Args:
            bundle: see `open_engine`.
            threads: see `open_engine`.
            interpreter: the class.
            executed_by: the package that brings it, with its version.

        Raises:
            EngineError: it cannot run the model, or the model is not what the manifest declares.
        """
        super().__init__(bundle.manifest.all_programs)
        self.executed_by = executed_by
        self._models: dict[str, Interpreter] = {}
        self._runners: dict[str, Any] = {}
        with held_back():
            for file in sorted({program.file for program in bundle.manifest.all_programs}):
                try:
                    self._models[file] = interpreter(str(bundle.path(file)), num_threads=threads)
                except (ValueError, RuntimeError) as error:
                    raise EngineError(_reason(executed_by, file, str(error))) from error
        for program in bundle.manifest.all_programs:
            _check_signature(self._models[program.file], program)

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if program.name not in self._runners:
            with held_back():  # the first run of a process logs
                runner = self._models[program.file].get_signature_runner(program.entry)
                _check_tensors(program, runner)
                self._runners[program.name] = runner
                return dict(runner(**inputs))
        return dict(self._runners[program.name](**inputs))

    def _release(self) -> None:
        self._runners.clear()
        self._models.clear()


def _reason(executed_by: str, file: str, message: str) -> str:
    """Why an interpreter cannot open a file: most often because it is too old."""
    missing = _MISSING.search(message)
    if missing is None:
        return f"{executed_by} cannot open {file}: {shorten(message, 200)[1:-1]}"
    return (
        f"{executed_by} is too old for {file}: it lacks {missing['operator']} version {missing['version']}:"
        " run it with ai-edge-litert (on 64 bits: pip install ai-edge-litert)"
    )


def _check_signature(model: Interpreter, program: ProgramSpec) -> None:
    """Raises EngineError: the model has no such signature, or not the tensors that the manifest declares."""
    signature = model.get_signature_list().get(program.entry)
    if signature is None:
        raise EngineError(f"{program.file} has no signature {program.entry!r}: convert the bundle again")
    for specs, names in ((program.inputs, signature["inputs"]), (program.outputs, signature["outputs"])):
        declared = sorted(spec.name for spec in specs)
        if declared != sorted(names):
            raise EngineError(
                f"{program.file}: the signature {program.entry!r} has the tensors {', '.join(sorted(names))}, the"
                f" manifest declares {', '.join(declared)}: convert the bundle again"
            )


def _check_tensors(program: ProgramSpec, runner: Any) -> None:
    """Raises EngineError: an input has another dtype or shape than the manifest declares.

    The interpreter would resize the input and run into undefined behaviour, instead of refusing it.
    """
    for spec in program.inputs:
        found = runner.get_input_details()[spec.name]
        dtype, shape = np.dtype(found["dtype"]), tuple(int(side) for side in found["shape"])
        if (str(dtype), shape) != (spec.dtype, spec.shape):
            raise EngineError(
                f"{program.file}: the input {spec.name} of {program.entry!r} is {dtype} {shape}, the manifest declares"
                f" {spec.dtype} {spec.shape}: convert the bundle again"
            )
