"""LiteRT's CompiledModel: one signature of a `.tflite` per program."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import ai_edge_litert
import numpy as np
from ai_edge_litert.compiled_model import CompiledModel, CpuOptions, Environment, EnvironmentOptions, Options
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tensor_buffer import TensorBuffer

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.delivery import cache_folder
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine, check_tensor
from edgeformer_runtime.engines.decoder import (
    CacheBucket,
    CacheSizes,
    DecoderOutput,
    Floats,
    HostCache,
    SpeechDecoder,
    alignment_of,
    check_mask,
    check_open,
    check_rows,
    encoder_of,
    padded_tokens,
)
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.model_files import Broken, mapped
from edgeformer_runtime.model_files.litert_float16 import widen
from edgeformer_runtime.process import held_back, silence_destructors

_ANONYMOUS_CACHE = ":memory" if sys.platform == "linux" else ""
"""XNNPACK's cache in a memory file of its own, where there are such files."""

_WITH_FLOAT16 = ("float16", "mixed")
"""Weights of these recipes may lie in float16, which a CPU computes in float32."""

# The buffers of larger programs (a speech model's caches, once for each of its lengths) are made for each run.
_KEPT_BYTES = 4 << 20

# A CPU needs no vendor's compiler or dispatch library; left to itself, LiteRT loads whichever it finds installed.
_NO_PLUGINS = str(Path(__file__).parent)


class LiteRTEngine(CheckedEngine):
    """Runs a LiteRT bundle on the CPU through XNNPACK. A program's buffers are made when it first runs, and kept."""

    name = "litert"

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Open the bundle's model; see `open_engine`."""
        super().__init__(bundle.manifest.all_programs)
        self.executed_by = f"ai-edge-litert {ai_edge_litert.__version__}"
        self._models: dict[str, Any] = {}
        self._buffers: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        with held_back():
            try:
                for file in sorted({program.file for program in bundle.manifest.all_programs}):
                    self._models[file] = _open(bundle, file, threads)
                for program in bundle.manifest.all_programs:
                    _check_signature(self._models[program.file], program)
            except RuntimeError as error:
                message = shorten(str(error), 200)[1:-1]
                raise EngineError(f"{self.executed_by} cannot open the model: {message}") from error
        self._decoders: weakref.WeakSet[LiteRTDecoder] = weakref.WeakSet()
        self._finish = weakref.finalize(self, _clear, self._decoders, self._buffers, self._models)

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:
        """A decoder over a bucket's programs, which read and write its caches in place."""
        if spec.state != HOST_STATE:
            raise EngineError(f"a LiteRT model keeps no state: expected {HOST_STATE!r}, found {spec.state!r}")
        prefill, decode = self.programs[bucket.prefill], self.programs[bucket.decode]
        with self._running(prefill):
            encode = None
            if bucket.encode is not None:
                program = self.programs[bucket.encode]
                encode = _Call(program, _make_inputs(self._models[program.file], program))
            decoder = LiteRTDecoder(self._run_buffers, encode, prefill, decode, bucket, spec)
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


def _open(bundle: Bundle, file: str, threads: int) -> Any:
    """A model file of a bundle, checked. Its float16 constants are widened where the system can hold that file."""
    path = bundle.path(file)
    check_model(path, file)
    if bundle.manifest.recipe.weights not in _WITH_FLOAT16 or sys.platform != "linux":
        return open_model(path, threads)
    programs = [program for program in bundle.manifest.all_programs if program.file == file]
    with ExitStack() as stack:
        try:
            wide = stack.enter_context(_scratch_file())
            if widen(mapped(path), programs, wide):
                own = Path(f"/proc/self/fd/{wide.fileno()}")
                check_model(own, file)
                return open_model(own, threads)
        except (OSError, Broken):  # no room; or its tables share what they would not share widened
            pass
    return open_model(path, threads)


def _scratch_file() -> IO[bytes]:
    """A file without a name, in the user's cache, which is on a disk; or, where nothing may be written, in memory.

    Its pages that are not read again do not stay in memory, if it is on a disk.
    """
    try:
        return TemporaryFile(dir=cache_folder())
    except (OSError, InputError):
        return os.fdopen(os.memfd_create("wide weights"), "w+b")


def open_model(path: Path, threads: int) -> Any:
    """A model whose signatures share their packed weights, in memory that no other process can write to.

    Without a weight cache every signature packs its own copy of the weights: 276 MB resident for four signatures of a
    50 MB model, and 150 ms to load. With XNNPACK's cache in a memory file they share one: 139 MB, 40 ms, the same
    latency. Who fills the cache also keeps the memory that it packed the largest weights in: 77 MB of the table of
    tiny.en's tokens at fp32. So the model is opened again, in 15 ms, and finds its weights packed. A cache on disk
    would save 35 ms of loading more, but a file that is overwritten while it is mapped kills the process. Only Linux
    has memory files.
    """
    if sys.platform == "linux" and hasattr(os, "memfd_create"):  # Python may have been built without it
        descriptor = os.memfd_create("packed weights")
        own = f"/proc/self/fd/{descriptor}"
        try:
            os.close(os.open(own, os.O_RDWR))
            _compiled(path, threads, own).close()
            return _compiled(path, threads, own)
        except OSError:  # an isolated process opens no file for writing, by whatever name
            pass
        finally:
            os.close(descriptor)
    return _compiled(path, threads, _ANONYMOUS_CACHE)


def _compiled(path: Path, threads: int, weight_cache: str) -> Any:
    options = Options(cpu_options=CpuOptions(num_threads=threads, xnnpack_weight_cache_path=weight_cache))
    return CompiledModel.from_file(str(path), environment=_environment(), options=options)


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


# A decoder whose caches stay in the buffers of LiteRT's programs.


Buffers = Mapping[str, Any]
RunBuffers = Callable[[ProgramSpec, Buffers, Buffers], None]
"""Runs a program from input buffers to output buffers, by name."""

_ALIGNMENT_BYTES = 64
"""LiteRT copies what lies otherwise, without a word."""


class HostTensor:
    """Memory of this process that LiteRT takes as it is.

    Attributes:
        array: the tensor, at first all zeros.
        buffer: the same memory for LiteRT. An input of more than two dimensions cannot be one.
    """

    def __init__(self, spec: TensorSpec) -> None:
        dtype = np.dtype(spec.dtype)
        size_bytes = int(np.prod(spec.shape)) * dtype.itemsize
        memory = np.zeros(size_bytes + _ALIGNMENT_BYTES, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT_BYTES
        flat: Tensor = memory[start : start + size_bytes].view(dtype)
        self.array: Tensor = flat.reshape(spec.shape)
        self.buffer: Any = TensorBuffer.create_from_host_memory(flat)


class _Call:
    """A program with the memory that it reads and writes.

    Attributes:
        results: its outputs by name, overwritten by each run.
    """

    def __init__(self, program: ProgramSpec, inputs: Buffers) -> None:
        outputs = _tensors(program.outputs)
        self.program = program
        self.inputs = {tensor.name: inputs[tensor.name] for tensor in program.inputs}
        self.outputs = {name: tensor.buffer for name, tensor in outputs.items()}
        self.results = {name: tensor.array for name, tensor in outputs.items()}


class LiteRTDecoder:
    """A decoder whose programs share their buffers: what `encode` writes is what the others read.

    Nothing but the rows of new tokens is ever copied.
    """

    def __init__(
        self,
        run: RunBuffers,
        encode: _Call | None,
        prefill: ProgramSpec,
        decode: ProgramSpec,
        bucket: CacheBucket,
        spec: CacheSizes,
    ) -> None:
        """Decode with the programs of a bucket.

        Args:
            run: runs a program; EngineError where that fails.
            encode: of speech, with a buffer of the model's own for its input, which has too many dimensions for a
                `HostTensor`; None of text.
            prefill, decode: the other programs.
            bucket: of the manifest.
            spec: of the manifest.
        """
        self.rows = bucket.rows
        self.prefill_tokens = spec.prefill_tokens
        self._run = run
        self._bucket = bucket
        self._encode = encode
        encoded = {} if encode is None else encode.outputs
        given = _tensors(tensor for tensor in (*prefill.inputs, *decode.inputs) if tensor.name not in encoded)
        self._given = {name: tensor.array for name, tensor in given.items()}
        inputs = encoded | {name: tensor.buffer for name, tensor in given.items()}
        self._prefill, self._decode = _Call(prefill, inputs), _Call(decode, inputs)
        self._cache = HostCache(bucket, spec, self._given)
        self._encoded = encode is None
        self._closed = False

    def encode(self, mel: Floats) -> None:
        """Encode a recording; see `SpeechDecoder.encode`."""
        check_open(self._closed, encoded=True)
        if self._encode is None:
            encoder_of(self._bucket)  # refuses
            return
        (spec,) = self._encode.program.inputs
        check_tensor(self._encode.program, spec, mel)
        self._encoded = False
        self._encode.inputs[spec.name].write(mel)
        self._execute(self._encode)
        self._encoded = True

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `TokenDecoder.step`."""
        results = self._feed(self._decode, {"token": token, "position": position}, row, 1, mask)
        return DecoderOutput(_floats(results["logits"]), alignment_of(results, self._bucket).copy())

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `TokenDecoder.prefill`."""
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        values = {"tokens": padded, "positions": positions, "wanted": wanted}
        results = self._feed(self._prefill, values, row, len(tokens), mask)
        logits, alignment = _floats(results["logits"]), alignment_of(results, self._bucket).copy()
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        self._closed = True
        for call in (self._encode, self._prefill, self._decode):
            if call is None:
                continue
            call.inputs.clear()
            call.outputs.clear()
            call.results.clear()
        self._given.clear()
        self._cache.clear()

    def _feed(self, call: _Call, values: Mapping[str, Any], row: int, count: int, mask: Floats) -> Mapping[str, Tensor]:
        """Run decode or prefill on values for its small inputs, and keep the rows of its `count` tokens."""
        check_open(self._closed, self._encoded)
        check_rows(row, count, self.rows)
        check_mask(mask, self.rows)
        for name, value in (*values.items(), ("mask", mask)):
            self._given[name][:] = value
        self._execute(call)
        self._cache.write(row, count, call.results)
        return call.results

    def _execute(self, call: _Call) -> None:
        self._run(call.program, call.inputs, call.outputs)


def _tensors(specs: Iterable[TensorSpec]) -> dict[str, HostTensor]:
    """Memory for each tensor, by name; a name that occurs twice is one tensor."""
    return {name: HostTensor(spec) for name, spec in {spec.name: spec for spec in specs}.items()}


def _floats(tensor: Tensor) -> Floats:
    """The array itself: the engine has compared its dtype with the model's."""
    return np.asarray(tensor, np.float32)
