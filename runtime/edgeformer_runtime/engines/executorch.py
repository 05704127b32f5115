"""ExecuTorch through XNNPACK, on the CPU: one method of a `.pte` per program."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import PROGRAM_STATE, AudioBucket, Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.engines.executorch_shim.build import Build, check_private, find_build, read_build
from edgeformer_runtime.engines.executorch_shim.library import ShimRuntime
from edgeformer_runtime.engines.program_decoder import ProgramStateDecoder, StateOwners
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.tasks.task import TASKS

CHOICE = "EDGEFORMER_EXECUTORCH"
"""The environment variable that names a runtime: "shim", "python", or a folder that `build-executorch --out` wrote."""

_BINDING = "executorch.extension.pybindings.portable_lib"

# ExecuTorch has one thread pool per process: it is set to the size that the running engine asked for.
_POOL_LOCK = threading.Lock()


def choose_runtime() -> Runtime:
    """The runtime that EDGEFORMER_EXECUTORCH names; by default the shim if one is built, else the Python binding.

    A process that already holds the binding keeps to it: two copies of ExecuTorch in one process warn of each other.

    Raises:
        EngineError: the one that is asked for is not built, or cannot be loaded.
        ImportError: the Python binding is wanted, and is not installed.
    """
    choice = os.environ.get(CHOICE, "")
    build: Build | None = None
    if choice == "" and _BINDING in sys.modules:
        choice = "python"
    if choice in ("", "shim"):
        build = find_build()
        if build is None and choice:
            raise EngineError(f"{CHOICE}=shim: no shim is built for this machine: edgeformer-runtime build-executorch")
    elif choice != "python":
        build = read_build(Path(choice))
        check_private(build)
    if build is not None:
        return ShimRuntime(build)
    from edgeformer_runtime.engines.executorch_python import PythonRuntime

    return PythonRuntime()


class ExecuTorchEngine(CheckedEngine):
    """Runs an ExecuTorch bundle on the CPU through XNNPACK."""

    name = "executorch"

    def __init__(self, bundle: Bundle, threads: int, runtime: Runtime | None = None) -> None:
        """Load the bundle's methods; see `open_engine`. `runtime`: what executes, in place of `choose_runtime`'s."""
        super().__init__(bundle.manifest.programs)
        self._runtime = choose_runtime() if runtime is None else runtime
        self.executed_by = self._runtime.version
        self._threads = threads
        self._paths = {program.file: bundle.path(program.file) for program in bundle.manifest.programs}
        self._states: weakref.WeakSet[_Methods] = weakref.WeakSet()
        # Dozens of methods, each with weights to pack, load when they are first called.
        self._methods = _Methods(self, eager=not TASKS[bundle.manifest.task].gives.stepwise)

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder; see `Engine.open_decoder`. Programs with state are loaded anew for each, state and all."""
        if spec.state != PROGRAM_STATE:
            return super().open_decoder(bucket, spec)
        state = _Methods(self)
        self._states.add(state)
        return ProgramStateDecoder(state.run, bucket, spec, StateOwners(), state.release)

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._methods.call(program, inputs)

    def _release(self) -> None:
        for methods in (self._methods, *self._states):
            methods.release()


class _Methods:
    """The methods of a bundle's files, loaded together: those of one file share its state, and their working memory."""

    def __init__(self, engine: ExecuTorchEngine, eager: bool = False) -> None:
        """Open the files; `eager`: load every method, so that what cannot run is refused at once."""
        self._engine = engine
        self._loaded: dict[str, Method] = {}
        try:
            with _POOL_LOCK:
                # Weights are packed for the threads that there are.
                engine._runtime.use_threads(engine._threads)
                self._files: dict[str, ModelFile] = {
                    file: engine._runtime.open(path) for file, path in sorted(engine._paths.items())
                }
                for program in engine.programs.values():
                    if program.entry not in self._files[program.file].method_names:
                        raise EngineError(f"{program.file} has no method {program.entry!r}: convert the bundle again")
                    if eager:
                        self._method(program)
        except RuntimeError as error:
            message = shorten(str(error), 200)[1:-1]
            raise EngineError(f"{engine.executed_by} cannot open the model: {message}") from error

    def _method(self, program: ProgramSpec) -> Method:
        if program.name not in self._loaded:
            self._loaded[program.name] = self._files[program.file].load(program.entry)
        return self._loaded[program.name]

    def run(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """As `Engine.run`, on the state of these methods."""
        program = self._engine.check_inputs(name, inputs)
        with self._engine._running(program):
            return self.call(program, inputs)

    def call(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a method on inputs that are what the program declares. Called under the engine's lock."""
        with _POOL_LOCK:
            self._engine._runtime.use_threads(self._engine._threads)
            outputs = self._method(program)([inputs[spec.name] for spec in program.inputs])
        return {spec.name: output for spec, output in zip(program.outputs, outputs, strict=True)}

    def release(self) -> None:
        """Let go of the model."""
        self._loaded.clear()
        self._files.clear()


# What the ExecuTorch engine sees of whichever runtime executes: files, their methods, arrays in, arrays out.


class Method(Protocol):
    """A loaded method of a file."""

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run it.

        Args:
            inputs: float32 or int32, in the method's order. They are read only until the call returns.

        Returns:
            The outputs, in the method's order, which are the caller's.

        Raises:
            RuntimeError: the inputs are not what the method takes, or it failed.
        """


class ModelFile(Protocol):
    """An open `.pte` file. Its methods share the memory of their state; it lives as long as one of them."""

    @property
    def method_names(self) -> Collection[str]:
        """What can be loaded."""

    def load(self, name: str) -> Method:
        """Load one of `method_names`: look up its kernels, and let the delegate pack its weights.

        Raises:
            RuntimeError: it does not run here.
        """


class Runtime(Protocol):
    """An ExecuTorch runtime of this process."""

    version: str
    """Its name and version: "executorch 1.5.1 (shim)"."""

    def open(self, path: Path) -> ModelFile:
        """Open a `.pte` file, which must not change as long as it is open.

        Raises:
            RuntimeError: it is no such file, or a corrupted one.
        """

    def use_threads(self, threads: int) -> None:
        """Give the process's only thread pool this size, unless it has it. Nothing may be running in it."""
