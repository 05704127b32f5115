"""LiteRT's CompiledModel: one signature of a `.tflite` per program."""

from __future__ import annotations

import atexit
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Environment, EnvironmentOptions, Options
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, AudioBucket, Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.engines.litert_decoder import Buffers, LiteRTDecoder
from edgeformer_runtime.engines.native_output import held_back, silence_destructors
from edgeformer_runtime.errors import EngineError

# Without a weight cache every signature packs its own copy of the weights: 276 MB resident for four signatures of a
# 50 MB model, and 150 ms to load. With XNNPACK's cache in an anonymous memory file they share one: 139 MB, 40 ms, the
# same latency. A cache on disk saves 35 ms of loading more, but a file that is overwritten while it is mapped kills
# the process. Only Linux has such memory files.
WEIGHT_CACHE = ":memory" if sys.platform == "linux" else ""

# The buffers of larger programs (a speech model's caches, once for each of its lengths) are made for each run.
_KEPT_BYTES = 4 << 20

# A CPU needs no vendor's compiler or dispatch library; left to itself, LiteRT loads whichever it finds installed.
_NO_PLUGINS = str(Path(__file__).parent)


class LiteRTEngine(CheckedEngine):
    """Runs a LiteRT bundle on the CPU through XNNPACK. A program's buffers are made when it first runs, and kept."""

    name = "litert"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open the bundle's model; see `open_engine`."""
        super().__init__(bundle.manifest.programs)
        self.executed_by = f"ai-edge-litert {version('ai-edge-litert')}"
        options = Options(cpu_options=CpuOptions(num_threads=threads, xnnpack_weight_cache_path=WEIGHT_CACHE))
        self._models: dict[str, Any] = {}
        self._buffers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        with held_back():
            try:
                for file in sorted({program.file for program in bundle.manifest.programs}):
                    check_model(bundle.path(file), file)
                    self._models[file] = CompiledModel.from_file(
                        str(bundle.path(file)), environment=_environment(), options=options
                    )
                for program in bundle.manifest.programs:
                    _check_signature(self._models[program.file], program)
            except RuntimeError as error:
                message = shorten(str(error), 200)[1:-1]
                raise EngineError(f"{self.executed_by} cannot open the model: {message}") from error
        self._decoders: weakref.WeakSet[LiteRTDecoder] = weakref.WeakSet()
        self._finish = weakref.finalize(self, _clear, self._decoders, self._buffers, self._models)

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        """A speech decoder over a bucket's programs, which read and write its caches in place."""
        if spec.state != HOST_STATE:
            raise EngineError(f"a LiteRT model keeps no state: expected {HOST_STATE!r}, found {spec.state!r}")
        encode, prefill, decode = (self.programs[name] for name in (bucket.encode, bucket.prefill, bucket.decode))
        with self._running(encode):
            mel = _make_inputs(self._models[encode.file], encode)[encode.inputs[0].name]
            decoder = LiteRTDecoder(self._run_buffers, (encode, prefill, decode), mel, bucket, spec)
            self._decoders.add(decoder)
        return decoder

    def _run_buffers(self, program: ProgramSpec, inputs: Buffers, outputs: Buffers) -> None:
        with self._running(program):
            self._models[program.file].run_by_name(program.entry, inputs, outputs)

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        input_buffers, output_buffers = self._buffers_of(program)
        for name, buffer in input_buffers.items():
            buffer.write(inputs[name])
        self._models[program.file].run_by_name(program.entry, input_buffers, output_buffers)
        return {spec.name: _read(output_buffers[spec.name], spec) for spec in program.outputs}

    def _buffers_of(self, program: ProgramSpec) -> tuple[dict[str, Any], dict[str, Any]]:
        """A program's input and output buffers by name: its own ones, or, for the largest programs, new ones."""
        if program.name in self._buffers:
            return self._buffers[program.name]
        model = self._models[program.file]
        outputs = {spec.name: model.create_output_buffer_by_name(program.entry, spec.name) for spec in program.outputs}
        buffers = _make_inputs(model, program), outputs
        if sum(_size_bytes(spec) for spec in (*program.inputs, *program.outputs)) <= _KEPT_BYTES:
            self._buffers[program.name] = buffers
        return buffers

    def _release(self) -> None:
        self._finish()


@cache
def _environment() -> Environment:
    """The process's only environment. It ends quietly with the process, or with the last engine after that."""
    atexit.register(_forget_environment)
    return Environment.create(
        options=EnvironmentOptions(compiler_plugin_path=_NO_PLUGINS, dispatch_library_path=_NO_PLUGINS)
    )


def _forget_environment() -> None:
    with held_back():
        _environment.cache_clear()
    silence_destructors()


def _check_signature(model: Any, program: ProgramSpec) -> None:
    """Raises EngineError: the model has no such signature, or not the tensors that the manifest declares.

    Names and sizes are compared. LiteRT would tell dtypes and shapes, too, but makes a second interpreter for that and
    keeps it: 64 MB for a speech model.
    """
    number = model.get_signature_index(program.entry)
    if number < 0:
        raise EngineError(f"{program.file} has no signature {program.entry!r}: convert the bundle again")
    signature = model.get_signature_by_index(number)
    _compare(program, program.inputs, signature["inputs"], partial(_input_size, model, number))
    _compare(program, program.outputs, signature["outputs"], partial(_output_size, model, number))


def _input_size(model: Any, signature: int, index: int) -> int:
    return int(model.get_input_buffer_requirements(index, signature)["buffer_size"])


def _output_size(model: Any, signature: int, index: int) -> int:
    return int(model.get_output_buffer_requirements(index, signature)["buffer_size"])


def _make_inputs(model: Any, program: ProgramSpec) -> dict[str, Any]:
    """Input buffers by name."""
    buffers = {spec.name: model.create_input_buffer_by_name(program.entry, spec.name) for spec in program.inputs}
    with held_back():  # the first write of a process logs
        for spec in program.inputs:
            buffers[spec.name].write(np.zeros(spec.shape, spec.dtype))
    return buffers


def _size_bytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def _compare(
    program: ProgramSpec, specs: tuple[TensorSpec, ...], names: Sequence[str], size_bytes: Callable[[int], int]
) -> None:
    declared = {spec.name: _size_bytes(spec) for spec in specs}
    found = {name: size_bytes(index) for index, name in enumerate(names)}
    if found != declared:
        raise EngineError(
            f"{program.file}: the signature {program.entry!r} has tensors of {shorten(found, 200)} bytes, the manifest"
            f" declares {shorten(declared, 200)}: convert the bundle again"
        )


def _read(buffer: Any, spec: TensorSpec) -> Tensor:
    flat: Tensor = buffer.read(int(np.prod(spec.shape)), np.dtype(spec.dtype))
    return flat.reshape(spec.shape)


def _clear(decoders: Iterable[LiteRTDecoder], buffers: dict[str, Any], models: dict[str, Any]) -> None:
    """Buffers go before the models whose memory they use. LiteRT logs as it goes."""
    with held_back():
        for decoder in list(decoders):
            decoder.close()
        buffers.clear()
        while models:
            models.popitem()[1].close()


# Looks at a `.tflite` before it is run: LiteRT's CompiledModel believes every offset in the file.


def check_model(path: Path, name: str) -> None:
    """Refuse a file that is no well-formed model, which would end the process with a segmentation fault.

    A well-formed model that lies about its shapes may still do harm: who does not trust where a bundle comes from
    requires a signature.

    The plain interpreter verifies the flatbuffer and the types and numbers of each operator's tensors when it is made,
    before it allocates anything. It is dropped again: 12 to 80 ms for models of 12 to 50 MB, no memory.

    Args:
        path: the model.
        name: the file's name in the bundle.

    Raises:
        EngineError: the file is no model that this runtime knows.
    """
    try:
        Interpreter(
            model_path=str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    except (ValueError, RuntimeError) as error:
        raise EngineError(f"LiteRT cannot open {name}: {shorten(str(error), 200)[1:-1]}") from error
