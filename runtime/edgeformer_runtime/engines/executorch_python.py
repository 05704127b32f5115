"""ExecuTorch's Python binding as a runtime. It links torch, so it is one for workstations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.native_output import held_back


class PythonRuntime:
    """A `Runtime` over `executorch.runtime`."""

    def __init__(self) -> None:
        """Import the binding, and torch with it.

        Raises:
            ImportError: a package is missing.
        """
        with warnings.catch_warnings(), held_back():
            warnings.simplefilter("ignore")  # the binding announces that it is experimental
            import torch
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            # Registers the kernels of quantized models, which the portable library leaves out.
            import executorch.kernels.quantized  # noqa: F401  # isort: skip

            portable_lib._threadpool_get_thread_count()  # the pool is made when it is first asked for, and prints

        self.version = f"executorch {version('executorch')} (python)"
        self._torch = torch
        self._pool: Any = portable_lib
        self._runtime = Runtime.get()

    def open(self, path: Path) -> PythonFile:
        """Open a file; see `Runtime.open`."""
        return PythonFile(self._torch, self._runtime.load_program(path))

    def use_threads(self, threads: int) -> None:
        """Size the pool; see `Runtime.use_threads`."""
        if self._pool._threadpool_get_thread_count() != threads:
            with held_back():  # it prints
                self._pool._unsafe_reset_threadpool(threads)


class PythonFile:
    """A `ModelFile` over the binding's program."""

    def __init__(self, torch: Any, program: Any) -> None:
        self.method_names: frozenset[str] = frozenset(program.method_names)
        self._torch = torch
        self._program = program

    def load(self, name: str) -> PythonMethod:
        """Load a method; see `ModelFile.load`."""
        return PythonMethod(self._torch, self._program.load_method(name))


class PythonMethod:
    """A `Method` over the binding's method."""

    def __init__(self, torch: Any, method: Any) -> None:
        self._torch = torch
        self._method = method

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the method; see `Method`."""
        # torch takes memory as it is, but none that it may not write to.
        tensors = [self._torch.from_numpy(np.require(each, requirements=["C", "W"])) for each in inputs]
        return [output.numpy() for output in self._method.execute(tensors)]
