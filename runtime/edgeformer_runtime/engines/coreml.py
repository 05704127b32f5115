"""Core ML, on macOS: one function of a `.mlpackage` per program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.manifest import ProgramSpec
from edgeformer_runtime.strict_json import shorten


class CoreMLEngine(CheckedEngine):
    """Runs a Core ML bundle on the CPU and the Neural Engine. The system chooses its own threads."""

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
        # A package with a single function, as opposed to a multi-function one, refuses a function name.
        several = len({program.entry for program in bundle.manifest.programs}) > 1
        for program in bundle.manifest.programs:
            try:
                self._models[program.name] = coremltools.models.MLModel(
                    str(bundle.path(program.file)),
                    compute_units=coremltools.ComputeUnit.CPU_AND_NE,
                    function_name=program.entry if several else None,
                )
            except Exception as error:  # the binding raises what the system reports
                message = shorten(str(error), 200)[1:-1]
                raise EngineError(f"{self.executed_by} cannot open {program.file}: {message}") from error

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._models[program.name].predict(dict(inputs))
        return {spec.name: np.array(outputs[spec.name], dtype=spec.dtype) for spec in program.outputs}

    def _release(self) -> None:
        self._models.clear()
