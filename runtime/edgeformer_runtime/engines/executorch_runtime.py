"""What the ExecuTorch engine sees of whichever runtime executes: files, their methods, arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from edgeformer_runtime.engines.base import Tensor


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
            RuntimeError: it is no such file, or a spoiled one.
        """

    def use_threads(self, threads: int) -> None:
        """Give the process's only thread pool this size, unless it has it. Nothing may be running in it."""
