"""ExecuTorch through XNNPACK, on the CPU: one method of a `.pte` per program."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Collection, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import PROGRAM_STATE
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.engines.decoder import (
    CacheBucket,
    CacheSizes,
    ProgramStateDecoder,
    SpeechDecoder,
    StateOwners,
)
from edgeformer_runtime.engines.executorch_shim.build import AGAIN, Build, check_private, find_build, read_build
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.process import held_back
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
            raise EngineError(
                f"{CHOICE}=shim: no shim is built for this machine: run edgeformer-runtime build-executorch"
            )
    elif choice != "python":
        build = read_build(Path(choice))
        check_private(build)
    if build is not None:
        return ShimRuntime(build)

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

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder; see `Engine.open_decoder`. Programs with state are loaded anew for each, state and all."""
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


# The shim as a runtime: its C interface through ctypes.


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


# ExecuTorch's Python binding as a runtime. It links torch, so it is one for workstations.


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
