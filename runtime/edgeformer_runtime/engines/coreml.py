"""Core ML, on macOS: one function of a `.mlpackage` per program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine, check_outputs, decoder_over
from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, SpeechDecoder, StateOwners
from edgeformer_runtime.errors import EngineError


class CoreMLEngine(CheckedEngine):
    """Runs a Core ML bundle on the CPU and the Neural Engine. The system chooses its own threads.

    States last from call to call in a decoder, each of which has its own; `run` starts every program with zeros.
    """

    name = "coreml"

    def __init__(self, bundle: Bundle, threads: int) -> None:  # noqa: ARG002
        """Compile and load the bundle's functions; see `open_engine`."""
        super().__init__(bundle.manifest.programs)
        if sys.platform != "darwin":
            raise EngineError(
                f"Core ML runs on macOS and iOS only, this is {sys.platform}: `edgeformer verify` (pip install"
                " 'edgeformer[coreml]') checks such a bundle here with a reference interpreter"
            )
        import coremltools

        self.executed_by = f"Core ML of macOS (coremltools {coremltools.__version__})"
        self._models: dict[str, Any] = {}
        self._stateful: set[str] = set()
        # A package with a single function, as opposed to a multi-function one, refuses a function name.
        several = len({program.entry for program in bundle.manifest.programs}) > 1
        for program in bundle.manifest.programs:
            try:
                self._models[program.name] = coremltools.models.MLModel(
                    str(bundle.path(program.file)),
                    compute_units=coremltools.ComputeUnit.CPU_AND_NE,
                    function_name=program.entry if several else None,
                )
                if _has_state(self._models[program.name], program.entry):
                    self._stateful.add(program.name)
            except Exception as error:  # the binding raises what the system reports
                message = shorten(str(error), 200)[1:-1]
                raise EngineError(f"{self.executed_by} cannot open {program.file}: {message}") from error

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder with an MLState of its own; see `Engine.open_decoder`."""
        return decoder_over(_State(self, bucket).run, bucket, spec, StateOwners())

    def run_with(self, program: str, inputs: Mapping[str, Tensor], state: Any) -> dict[str, Tensor]:
        """Run one program on a state that it changes; None: it has none. As `Engine.run`."""
        spec = self.check_inputs(program, inputs)
        with self._running(spec):
            outputs = self._predict(spec, inputs, state)
        return check_outputs(spec, outputs)

    def make_state(self, program: str) -> Any:
        """The states of a program, all zeros, which functions with states of the same names take too."""
        with self._running(self.programs[program]):
            return self._models[program].make_state()

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        model = self._models[program.name]
        return self._predict(program, inputs, model.make_state() if program.name in self._stateful else None)

    def _predict(self, program: ProgramSpec, inputs: Mapping[str, Tensor], state: Any) -> dict[str, Tensor]:
        model = self._models[program.name]
        outputs = model.predict(dict(inputs), state=state) if state is not None else model.predict(dict(inputs))
        return {spec.name: np.array(outputs[spec.name], dtype=spec.dtype) for spec in program.outputs}

    def _release(self) -> None:
        self._models.clear()


class _State:
    """What a decoder's programs keep from call to call. Encode keeps nothing."""

    def __init__(self, engine: CoreMLEngine, bucket: CacheBucket) -> None:
        self._engine = engine
        self._encode = bucket.encode
        # Made from one function and given to both, as both have the same states.
        self._state = engine.make_state(bucket.decode)

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `Engine.run`."""
        return self._engine.run_with(program, inputs, None if program == self._encode else self._state)


def _has_state(model: Any, entry: str) -> bool:
    """Whether a function has states; a package of several describes each of them apart."""
    description = model.get_spec().description
    functions = {function.name: function for function in description.functions}
    return bool(functions.get(entry, description).state)
