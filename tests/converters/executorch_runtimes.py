"""Both of ExecuTorch's runtimes in one process."""

from __future__ import annotations

from pathlib import Path

from edgeformer_runtime.engines.executorch import PythonRuntime, Runtime, ShimRuntime
from edgeformer_runtime.engines.executorch_shim.build import read_build


def both_runtimes(shim: Path) -> dict[str, Runtime]:
    """The Python binding and a build of the shim, by name."""
    return {"python": PythonRuntime(), "shim": ShimRuntime(read_build(shim))}
