"""More lengths of a text program, made of the graphs of two: tracing each takes seconds, and they differ in sizes.

What differs between the two graphs grows linearly with the length: sizes of tensors, and the integers of reshapes and
slices. Constants of other sizes are tables of positions, of which a shorter one is the beginning of a longer one.
Nothing here has to be believed: a graph that is like neither of this is not made, and each program's vectors are
verified at fp32 before anything is delivered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.models.program import Program
from edgeformer_converters.litert.graph import LiteRTGraph

TRACED = 2


class NotAlikeError(Exception):
    """The two graphs differ in more than their length."""


def to_trace(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs that have to be lowered so that `add_lengths` can make the others: of any length the two longest."""
    lengths = [program.name for program in programs if program.any_length]
    made = set(lengths[:-TRACED])
    return tuple(program for program in programs if program.name not in made)


def add_lengths(path: Path, programs: Sequence[Program]) -> None:
    """Give a `.tflite` of `to_trace(programs)` the graphs and signatures of all the programs, in their order.

    Raises:
        NotAlikeError: the two graphs differ in more than their length; the file is as it was.
    """
    file = LiteRTGraph(path)
    model, schema = file.model, file.schema
    signatures = {each.signatureKey.decode(): each for each in model.signatureDefs}
    graphs = {name: model.subgraphs[each.subgraphIndex] for name, each in signatures.items()}
    lengths = {program.name: program.inputs[0].shape[1] for program in programs if program.any_length}
    shorter, longer = (name for name in lengths if name in graphs)
    pair = _Pair(model.buffers, schema, (graphs[shorter], graphs[longer]), (lengths[shorter], lengths[longer]))
    buffers = len(model.buffers)
    try:
        made = {name: pair.at(length, name) for name, length in lengths.items() if name not in graphs}
    except NotAlikeError:
        del model.buffers[buffers:]
        raise
    for name in made:
        signatures[name] = copy(signatures[longer])
        signatures[name].signatureKey = name.encode()
    model.subgraphs = [(graphs | made)[program.name] for program in programs]
    model.signatureDefs = [signatures[program.name] for program in programs]
    for index, signature in enumerate(model.signatureDefs):
        signature.subgraphIndex = index
    path.write_bytes(file.to_bytes())


class _Pair:
    """Two graphs of one program, at two lengths."""

    def __init__(self, buffers: list[Any], schema: Any, graphs: tuple[Any, Any], lengths: tuple[int, int]) -> None:
        self._buffers = buffers
        self._schema = schema
        self._short, self._long = graphs
        self._lengths = lengths
        self._made: dict[tuple[int, int, bytes], int] = {}

    def at(self, length: int, name: str) -> Any:
        """The graph at another length."""
        graph = copy(self._long)
        graph.name = name.encode()
        graph.tensors = [
            self._tensor(short, long, length)
            for short, long in _zipped(self._short.tensors, self._long.tensors, "tensors")
        ]
        graph.operators = [
            self._alike(short, long, length)
            for short, long in _zipped(self._short.operators, self._long.operators, "operators")
        ]
        for field in ("inputs", "outputs"):
            if list(getattr(self._short, field)) != list(getattr(self._long, field)):
                raise NotAlikeError(field)
        return graph

    def _tensor(self, short: Any, long: Any, length: int) -> Any:
        tensor = self._alike(short, long, length, but=("buffer", "name"))
        tensor.buffer = self._buffer(short, long, tensor)
        if tensor.buffer < 0:
            tensor.buffer = self._integers(short, long, length)
        return tensor

    def _buffer(self, short: Any, long: Any, tensor: Any) -> int:
        """The buffer of a tensor's numbers; -1: they are integers that change with the length."""
        before, after = (self._buffers[each.buffer].data for each in (short, long))
        if before is None and after is None:
            return int(long.buffer)
        if before is None or after is None:
            raise NotAlikeError("constants")
        if np.array_equal(before, after):
            return int(long.buffer)
        if len(before) == len(after):
            return -1
        size = int(np.prod(tensor.shape)) * len(after) // int(np.prod(long.shape))
        if size > len(after) or not np.array_equal(after[: len(before)], before):
            raise NotAlikeError("constants")
        return self._stored(after[:size], long.buffer)

    def _integers(self, short: Any, long: Any, length: int) -> int:
        if long.type != self._schema.TensorType.INT32:
            raise NotAlikeError("constants")
        before, after = (self._buffers[each.buffer].data.view(np.int32) for each in (short, long))
        return self._stored(self._line(before, after, length).astype(np.int32).view(np.uint8), long.buffer)

    def _stored(self, data: NDArray[np.uint8], original: int) -> int:
        key = (original, len(data), data.tobytes() if len(data) < 256 else b"")
        if key not in self._made:
            buffer = self._schema.BufferT()
            buffer.data = data
            self._buffers.append(buffer)
            self._made[key] = len(self._buffers) - 1
        return self._made[key]

    def _alike(self, short: Any, long: Any, length: int, but: Sequence[str] = ()) -> Any:
        """A table of the flatbuffer whose integers are those of two, at another length; all else has to be equal."""
        if type(short) is not type(long):
            raise NotAlikeError(type(long).__name__)
        made = copy(long)
        fields: Mapping[str, Any] = vars(long)
        for name, after in fields.items():
            before = getattr(short, name)
            if name not in but and not _equal(before, after):
                setattr(made, name, self._between(before, after, length))
        return made

    def _between(self, before: Any, after: Any, length: int) -> Any:
        if hasattr(after, "__dict__"):
            return self._alike(before, after, length)
        first, last = np.asarray(before), np.asarray(after)
        if first.dtype.kind != "i" or first.shape != last.shape or not first.ndim:
            raise NotAlikeError("fields")
        found = self._line(first, last, length)
        return found.tolist() if isinstance(after, list) else found.astype(last.dtype)

    def _line(self, before: NDArray[Any], after: NDArray[Any], length: int) -> NDArray[np.int64]:
        """Integers at another length, on the lines through those at two."""
        first, last = self._lengths
        rise = (after.astype(np.int64) - before) * (length - last)
        if (rise % (last - first)).any():
            raise NotAlikeError("sizes")
        found: NDArray[np.int64] = after + rise // (last - first)
        return found


def _zipped(short: Sequence[Any], long: Sequence[Any], what: str) -> list[tuple[Any, Any]]:
    if len(short) != len(long):
        raise NotAlikeError(what)
    return list(zip(short, long, strict=True))


def _equal(before: Any, after: Any) -> bool:
    if hasattr(after, "__dict__"):
        return type(before) is type(after) and all(
            _equal(getattr(before, name), each) for name, each in vars(after).items()
        )
    if isinstance(after, list):
        return isinstance(before, list) and len(before) == len(after) and all(map(_equal, before, after))
    return bool(np.array_equal(before, after)) if isinstance(after, np.ndarray) else bool(before == after)
