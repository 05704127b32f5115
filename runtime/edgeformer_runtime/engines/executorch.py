"""ExecuTorch's Python binding: one method of a `.pte` per program. It needs torch, so it is a workstation engine."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine, check_tensor
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.engines.native_output import held_back
from edgeformer_runtime.engines.program_decoder import ProgramStateDecoder
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.manifest import ProgramSpec
from edgeformer_runtime.speech_spec import PROGRAM_STATE, AudioBucket, Transcription
from edgeformer_runtime.strict_json import shorten

# ExecuTorch has one thread pool per process: it is set to the size that the running engine asked for.
_POOL_LOCK = threading.Lock()


class ExecuTorchEngine(CheckedEngine):
    """Runs an ExecuTorch bundle on the CPU through XNNPACK."""

    name = "executorch"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the bundle's methods; see `open_engine`."""
        super().__init__(bundle.manifest.programs)
        with warnings.catch_warnings(), held_back():
            warnings.simplefilter("ignore")  # the binding announces that it is experimental
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            # Registers the kernels of quantized models, which the portable library leaves out.
            import executorch.kernels.quantized  # noqa: F401  # isort: skip

            # Here, because it prints; a run does it again only if another engine has changed the pool since.
            portable_lib._unsafe_reset_threadpool(threads)

        self.executed_by = f"executorch {version('executorch')}"
        self._torch = torch
        self._pool: Any = portable_lib
        self._threads = threads
        self._runtime = Runtime.get()
        self._paths = {program.file: bundle.path(program.file) for program in bundle.manifest.programs}
        self._states: weakref.WeakSet[_Methods] = weakref.WeakSet()
        # A speech bundle has dozens of methods, each with weights to pack: they load when they are first called.
        self._methods = _Methods(self, eager=not isinstance(bundle.manifest.postprocessing, Transcription))

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder; see `Engine.open_decoder`. Programs with state are loaded anew for each, state and all."""
        if spec.state != PROGRAM_STATE:
            return super().open_decoder(bucket, spec)
        state = _DecoderMethods(self, bucket)
        self._states.add(state)
        return ProgramStateDecoder(state.run, bucket, spec, state.release)

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._methods.call(
            program, [self._torch.from_numpy(inputs[spec.name].copy()) for spec in program.inputs]
        )
        return {spec.name: output.numpy() for spec, output in zip(program.outputs, outputs, strict=True)}

    def _release(self) -> None:
        for methods in (self._methods, *self._states):
            methods.release()


class _Methods:
    """The methods of a bundle's files, loaded together: those of one file share its state, and their working memory."""

    def __init__(self, engine: ExecuTorchEngine, eager: bool = False) -> None:
        """Open the files; `eager`: load every method, so that what cannot run is refused at once."""
        self._engine = engine
        self._loaded: dict[str, Any] = {}
        try:
            self._files = {file: engine._runtime.load_program(path) for file, path in sorted(engine._paths.items())}
            for program in engine.programs.values():
                if program.entry not in self._files[program.file].method_names:
                    raise EngineError(f"{program.file} has no method {program.entry!r}: convert the bundle again")
                if eager:
                    self._method(program)
        except RuntimeError as error:
            message = shorten(str(error), 200)[1:-1]
            raise EngineError(f"{engine.executed_by} cannot open the model: {message}") from error

    def _method(self, program: ProgramSpec) -> Any:
        if program.name not in self._loaded:
            self._loaded[program.name] = self._files[program.file].load_method(program.entry)
        return self._loaded[program.name]

    def call(self, program: ProgramSpec, arguments: list[Any]) -> list[Any]:
        """Run a method on torch tensors, to tensors that are the caller's. Called under the engine's lock."""
        engine = self._engine
        with _POOL_LOCK:
            if engine._pool._threadpool_get_thread_count() != engine._threads:
                engine._pool._unsafe_reset_threadpool(engine._threads)
            return list(self._method(program).execute(arguments))

    def release(self) -> None:
        """Let go of the model."""
        self._loaded.clear()
        self._files.clear()


class _DecoderMethods(_Methods):
    """A decoder's own load of its bucket's methods. What encode gives stays as it is, for the others to read."""

    def __init__(self, engine: ExecuTorchEngine, bucket: AudioBucket) -> None:
        super().__init__(engine)
        self._encode = bucket.encode

    def run(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As `Engine.run`, with the outputs of encode as torch tensors."""
        engine = self._engine
        program = engine.programs[name]
        arguments = []
        for spec in program.inputs:
            tensor = inputs[spec.name]
            if isinstance(tensor, np.ndarray):
                check_tensor(program, spec, tensor)
                tensor = engine._torch.from_numpy(tensor.copy())
            arguments.append(tensor)
        with engine._running(program):
            outputs = self.call(program, arguments)
        named = {spec.name: output for spec, output in zip(program.outputs, outputs, strict=True)}
        return named if name == self._encode else {key: output.numpy() for key, output in named.items()}
