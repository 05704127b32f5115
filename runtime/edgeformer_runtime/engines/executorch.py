"""ExecuTorch's Python binding: one method of a `.pte` per program. It needs torch, so it is a workstation engine."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.engines.native_output import held_back
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.manifest import ProgramSpec
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
        self._methods: dict[str, Any] = {}
        runtime = Runtime.get()
        try:
            files = {
                file: runtime.load_program(bundle.path(file))
                for file in sorted({program.file for program in bundle.manifest.programs})
            }
            for program in bundle.manifest.programs:
                if program.entry not in files[program.file].method_names:
                    raise EngineError(f"{program.file} has no method {program.entry!r}: convert the bundle again")
                self._methods[program.name] = files[program.file].load_method(program.entry)
        except RuntimeError as error:
            message = shorten(str(error), 200)[1:-1]
            raise EngineError(f"{self.executed_by} cannot open the model: {message}") from error

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arguments = [self._torch.from_numpy(inputs[spec.name].copy()) for spec in program.inputs]
        with _POOL_LOCK:
            if self._pool._threadpool_get_thread_count() != self._threads:
                self._pool._unsafe_reset_threadpool(self._threads)
            outputs = self._methods[program.name].execute(arguments)
        return {spec.name: output.numpy().copy() for spec, output in zip(program.outputs, outputs, strict=True)}

    def _release(self) -> None:
        self._methods.clear()
