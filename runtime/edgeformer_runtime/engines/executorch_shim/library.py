"""The shim as a runtime: its C interface through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.executorch_shim.build import AGAIN, Build
from edgeformer_runtime.errors import EngineError

_MAX_RANK = 16
_DTYPES = {3: "int32", 6: "float32"}
"""The dtypes that a bundle's programs may have, by their numbers in ExecuTorch's ScalarType."""


class _TensorInfo(Structure):
    """EfTensorInfo of shim.cpp."""

    _fields_ = (("dtype", c_int32), ("rank", c_int32), ("sizes", c_int64 * _MAX_RANK), ("bytes", c_uint64))


class _Buffer(Structure):
    """EfBuffer of shim.cpp."""

    _fields_ = (("data", c_void_p), ("bytes", c_uint64))


_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ef_error": (c_char_p, []),
    "ef_open": (c_int, [c_char_p, POINTER(c_void_p)]),
    "ef_close": (None, [c_void_p]),
    "ef_method_count": (c_size_t, [c_void_p]),
    "ef_method_name": (c_char_p, [c_void_p, c_size_t]),
    "ef_load_method": (c_int, [c_void_p, c_char_p]),
    "ef_tensor_counts": (c_int, [c_void_p, c_char_p, POINTER(c_size_t), POINTER(c_size_t)]),
    "ef_tensor_info": (c_int, [c_void_p, c_char_p, c_int, c_size_t, POINTER(_TensorInfo)]),
    "ef_execute": (c_int, [c_void_p, c_char_p, POINTER(_Buffer), c_size_t, POINTER(_Buffer), c_size_t]),
    "ef_use_threads": (c_int, [c_uint32]),
}
"""What each function returns and takes."""


@cache
def _load(path: Path) -> ctypes.CDLL:
    """The library, loaded once, with its functions typed.

    Raises:
        EngineError: the system's loader refuses it.
    """
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{path} cannot be loaded: {error}: {AGAIN}") from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class ShimRuntime:
    """A `Runtime` over a build of the shim."""

    def __init__(self, build: Build) -> None:
        """Load the build.

        Raises:
            EngineError: it cannot be loaded, or not into this process.
        """
        # Libraries of one name are loaded once, so the binding and the shim share ExecuTorch's if both are used.
        if "executorch.extension.pybindings._C" in sys.modules and version("executorch") != build.record.executorch:
            raise EngineError(
                f"the shim has executorch {build.record.executorch}, and this process has loaded"
                f" {version('executorch')}: use another process, or {AGAIN}"
            )
        self.version = f"executorch {build.record.executorch} (shim)"
        self._library = _load(build.library.resolve())

    def open(self, path: Path) -> ShimFile:
        """Open a file; see `Runtime.open`."""
        return ShimFile(self._library, path)

    def use_threads(self, threads: int) -> None:
        """Size the pool; see `Runtime.use_threads`."""
        _check(self._library, self._library.ef_use_threads(threads))


class ShimFile:
    """A `ModelFile` over a module of the shim. It closes when nobody refers to it and its methods any more."""

    def __init__(self, library: ctypes.CDLL, path: Path) -> None:
        handle = c_void_p()
        _check(library, library.ef_open(os.fsencode(path), byref(handle)))
        self.library = library
        self.handle = handle
        self.method_names: tuple[str, ...] = tuple(
            library.ef_method_name(handle, index).decode("utf-8", "replace")
            for index in range(library.ef_method_count(handle))
        )
        weakref.finalize(self, library.ef_close, handle)

    def load(self, name: str) -> ShimMethod:
        """Load a method; see `ModelFile.load`."""
        return ShimMethod(self, name)


@dataclass(frozen=True)
class _Declared:
    """An input or output as the file declares it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class ShimMethod:
    """A `Method` over one of the shim."""

    def __init__(self, file: ShimFile, name: str) -> None:
        library = file.library
        self._file = file
        self._name = name.encode()
        _check(library, library.ef_load_method(file.handle, self._name))
        inputs, outputs = c_size_t(), c_size_t()
        _check(library, library.ef_tensor_counts(file.handle, self._name, byref(inputs), byref(outputs)))
        self._inputs = [self._declared(False, index) for index in range(inputs.value)]
        self._outputs = [self._declared(True, index) for index in range(outputs.value)]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the method; see `Method`."""
        found = [(str(each.dtype), each.shape) for each in inputs]
        declared = [(str(each.dtype), each.shape) for each in self._inputs]
        if found != declared:
            raise RuntimeError(f"the method takes {declared}, found {found}: convert the bundle again")
        dense = [np.require(each, requirements=["C", "A"]) for each in inputs]
        outputs: list[Tensor] = [np.empty(each.shape, each.dtype) for each in self._outputs]
        library = self._file.library
        _check(
            library,
            library.ef_execute(
                self._file.handle, self._name, _buffers(dense), len(dense), _buffers(outputs), len(outputs)
            ),
        )
        return outputs

    def _declared(self, output: bool, index: int) -> _Declared:
        library, info = self._file.library, _TensorInfo()
        _check(library, library.ef_tensor_info(self._file.handle, self._name, int(output), index, byref(info)))
        shape = tuple(info.sizes[: info.rank])
        dtype = np.dtype(_DTYPES[info.dtype]) if info.dtype in _DTYPES else None
        if dtype is None or prod(shape) * dtype.itemsize != info.bytes:
            raise RuntimeError(
                f"{self._name.decode()}: expected tensors of float32 or int32, found ScalarType {info.dtype} {shape}"
            )
        return _Declared(dtype, shape)


def _buffers(arrays: Sequence[Tensor]) -> Any:
    """A C array of EfBuffer over arrays that outlive it."""
    return (_Buffer * len(arrays))(*(_Buffer(each.ctypes.data, each.nbytes) for each in arrays))


def _check(library: ctypes.CDLL, code: int) -> None:
    """Raises RuntimeError: a function has failed, in ExecuTorch's words."""
    if code:
        raise RuntimeError(library.ef_error().decode("utf-8", "replace"))
