"""LiteRT's own speech decoder: programs read and write the caches where they lie, in this process's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.tensor_buffer import TensorBuffer

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import AudioBucket, TensorSpec, Transcription
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.engines.checked import check_tensor
from edgeformer_runtime.engines.decoder import DecoderOutput, Floats
from edgeformer_runtime.engines.host_decoder import HostCache, check_mask, check_open, check_rows, padded_tokens

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
    """A `SpeechDecoder` whose programs share their buffers: what `encode` writes is what the others read.

    Nothing but the rows of new tokens is ever copied.
    """

    def __init__(
        self,
        run: RunBuffers,
        programs: tuple[ProgramSpec, ProgramSpec, ProgramSpec],
        mel: Any,
        bucket: AudioBucket,
        spec: Transcription,
    ) -> None:
        """Decode with the programs of a bucket.

        Args:
            run: runs a program; EngineError where that fails.
            programs: encode, prefill and decode.
            mel: a buffer of the model's own for encode's input, which has too many dimensions for a `HostTensor`.
            bucket: of the manifest.
            spec: of the manifest.
        """
        self.rows = bucket.rows
        self.prefill_tokens = spec.prefill_tokens
        self._run = run
        self._positions = bucket.positions
        encode, prefill, decode = programs
        self._mel_spec = encode.inputs[0]
        self._encode = _Call(encode, {self._mel_spec.name: mel})
        given = _tensors(
            tensor for tensor in (*prefill.inputs, *decode.inputs) if tensor.name not in self._encode.results
        )
        self._given = {name: tensor.array for name, tensor in given.items()}
        inputs = self._encode.outputs | {name: tensor.buffer for name, tensor in given.items()}
        self._prefill, self._decode = _Call(prefill, inputs), _Call(decode, inputs)
        self._cache = HostCache(bucket, spec, self._given)
        self._heard = self._closed = False

    def encode(self, mel: Floats) -> None:
        """Hear a sound; see `SpeechDecoder.encode`."""
        check_open(self._closed, heard=True)
        check_tensor(self._encode.program, self._mel_spec, mel)
        self._heard = False
        self._encode.inputs[self._mel_spec.name].write(mel)
        self._execute(self._encode)
        self._heard = True

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token; see `SpeechDecoder.step`."""
        results = self._feed(self._decode, {"token": token, "position": position}, row, 1, mask)
        return DecoderOutput(_floats(results["logits"]), self._alignment(results))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once; see `SpeechDecoder.prefill`."""
        padded, positions = padded_tokens(tokens, position, wanted, self.prefill_tokens)
        values = {"tokens": padded, "positions": positions, "wanted": wanted}
        results = self._feed(self._prefill, values, row, len(tokens), mask)
        logits, alignment = _floats(results["logits"]), self._alignment(results)
        return DecoderOutput(logits[0], alignment[:, :0]), DecoderOutput(logits[1], alignment)

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
        self._closed = True
        for call in (self._encode, self._prefill, self._decode):
            call.inputs.clear()
            call.outputs.clear()
            call.results.clear()
        self._given.clear()
        self._cache.clear()

    def _feed(self, call: _Call, values: Mapping[str, Any], row: int, count: int, mask: Floats) -> Mapping[str, Tensor]:
        """Run decode or prefill on values for its small inputs, and keep the rows of its `count` tokens."""
        check_open(self._closed, self._heard)
        check_rows(row, count, self.rows)
        check_mask(mask, self.rows)
        for name, value in (*values.items(), ("mask", mask)):
            self._given[name][:] = value
        self._execute(call)
        self._cache.write(row, count, call.results)
        return call.results

    def _execute(self, call: _Call) -> None:
        self._run(call.program, call.inputs, call.outputs)

    def _alignment(self, results: Mapping[str, Tensor]) -> Floats:
        """The columns of (A, S) that stand for sound, as an array of the caller's own."""
        return _floats(results["alignment"])[:, : self._positions].copy()


def _tensors(specs: Iterable[TensorSpec]) -> dict[str, HostTensor]:
    """Memory for each tensor, by name; a name that occurs twice is one tensor."""
    return {name: HostTensor(spec) for name, spec in {spec.name: spec for spec in specs}.items()}


def _floats(tensor: Tensor) -> Floats:
    """The array itself: the engine has compared its dtype with the model's."""
    return np.asarray(tensor, np.float32)
