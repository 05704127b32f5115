"""More lengths of a program, made of the graphs of two: tracing each takes seconds, and they differ in sizes.

What differs between the two graphs are sizes of tensors, and the integers of reshapes and slices. Each grows linearly
with a size that the program's inputs or outputs have, of which a text has one and a step of a speech decoder two: the
slots of its cache, and the positions of the audio. Constants that differ are buffers of the programs' modules, which
each program has, or tables of positions, of which a shorter one is the beginning of a longer one.
Nothing here has to be believed: a graph that is like neither of this is not made, and each program's vectors are
verified at fp32 before anything is delivered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeformer.models.program import Program
from edgeformer_converters.litert.graph import LiteRTGraph


class NotAlikeError(Exception):
    """The two graphs differ in more than their sizes."""


class _Group(NamedTuple):
    """Alike programs: the two that are traced, and those that are made of them."""

    short: Program
    long: Program
    made: tuple[Program, ...]


def to_trace(programs: Sequence[Program]) -> tuple[Program, ...]:
    """The programs that have to be lowered so that `add_lengths` can make the others: two of those that are alike."""
    made = {program.name for group in _groups(programs) for program in group.made}
    return tuple(program for program in programs if program.name not in made)


def add_lengths(path: Path, programs: Sequence[Program]) -> None:
    """Give a `.tflite` of `to_trace(programs)` the graphs and signatures of all the programs, in their order.

    Raises:
        NotAlikeError: two graphs differ in more than their sizes; the file is as it was.
    """
    file = LiteRTGraph(path)
    model = file.model
    signatures = {each.signatureKey.decode(): each for each in model.signatureDefs}
    graphs = {name: model.subgraphs[each.subgraphIndex] for name, each in signatures.items()}
    for group in _groups(programs):
        pair = _Pair(model.buffers, file.schema, (graphs[group.short.name], graphs[group.long.name]), group)
        for program in group.made:
            graphs[program.name] = pair.of(program)
            signatures[program.name] = copy(signatures[group.long.name])
            signatures[program.name].signatureKey = program.name.encode()
    model.subgraphs = [graphs[program.name] for program in programs]
    model.signatureDefs = [signatures[program.name] for program in programs]
    for index, signature in enumerate(model.signatureDefs):
        signature.subgraphIndex = index
    path.write_bytes(file.to_bytes())


def _groups(programs: Sequence[Program]) -> Iterator[_Group]:
    """The groups from which something can be made. The longest program is traced, and the longest other one that
    differs from it in every size that changes at all."""
    for alike in dict.fromkeys(program.alike for program in programs if program.alike):
        members = [program for program in programs if program.alike == alike]
        sizes = np.array([_sizes(program) for program in members])
        changing = (sizes != sizes[-1]).any(axis=0)
        for number in range(len(members) - 2, -1, -1):
            made = (*members[:number], *members[number + 1 : -1])
            if made and (sizes[number] != sizes[-1])[changing].all():
                yield _Group(members[number], members[-1], made)
                break


def _sizes(program: Program) -> list[int]:
    """Those of all inputs and outputs."""
    return list(chain.from_iterable(spec.shape for spec in (*program.inputs, *program.outputs)))


class _Pair:
    """Two graphs of programs that are alike."""

    def __init__(self, buffers: list[Any], schema: Any, graphs: tuple[Any, Any], group: _Group) -> None:
        self._buffers = buffers
        self._schema = schema
        self._short, self._long = graphs
        self._sizes = tuple(zip(_sizes(group.short), _sizes(group.long), strict=True))
        self._named = [_names(dict(program.module.named_buffers())) for program in (group.short, group.long)]
        self._made: dict[tuple[int, bytes], int] = {}
        self._program = group.long
        self._lines: dict[tuple[int, int], int] = {}

    def of(self, program: Program) -> Any:
        """The graph of another program."""
        self._program, self._lines = program, {}
        graph = copy(self._long)
        graph.name = program.name.encode()
        graph.tensors = [
            self._tensor(short, long) for short, long in _zipped(self._short.tensors, self._long.tensors, "tensors")
        ]
        graph.operators = [
            self._alike(short, long)
            for short, long in _zipped(self._short.operators, self._long.operators, "operators")
        ]
        for field in ("inputs", "outputs"):
            if list(getattr(self._short, field)) != list(getattr(self._long, field)):
                raise NotAlikeError(field)
        return graph

    def _tensor(self, short: Any, long: Any) -> Any:
        tensor = self._alike(short, long, but=("buffer", "name"))
        tensor.buffer = self._buffer(short, long, tensor)
        return tensor

    def _buffer(self, short: Any, long: Any, tensor: Any) -> int:
        """The buffer of a tensor's numbers."""
        before, after = (self._buffers[each.buffer].data for each in (short, long))
        if before is None and after is None:
            return int(long.buffer)
        if before is None or after is None:
            raise NotAlikeError("constants")
        if np.array_equal(before, after):
            return int(long.buffer)
        for name in self._named[0].get(before.tobytes(), set()) & self._named[1].get(after.tobytes(), set()):
            return self._stored(_bytes(self._program.module.get_buffer(name)), long.buffer)
        if len(before) == len(after) and long.type == self._schema.TensorType.INT32:
            integers = self._line(before.view(np.int32), after.view(np.int32))
            return self._stored(integers.astype(np.int32).view(np.uint8), long.buffer)
        size = int(np.prod(tensor.shape)) * len(after) // int(np.prod(long.shape))
        if len(before) == len(after) or size > len(after) or not np.array_equal(after[: len(before)], before):
            raise NotAlikeError("constants")
        return self._stored(after[:size], long.buffer)

    def _stored(self, data: NDArray[np.uint8], original: int) -> int:
        key = (original, data.tobytes())
        if key not in self._made:
            buffer = self._schema.BufferT()
            buffer.data = data
            self._buffers.append(buffer)
            self._made[key] = len(self._buffers) - 1
        return self._made[key]

    def _alike(self, short: Any, long: Any, but: Sequence[str] = ()) -> Any:
        """A table of the flatbuffer whose integers are those of two, at other sizes; all else has to be equal."""
        if type(short) is not type(long):
            raise NotAlikeError(type(long).__name__)
        made = copy(long)
        fields: Mapping[str, Any] = vars(long)
        for name, after in fields.items():
            before = getattr(short, name)
            if name not in but and not _equal(before, after):
                setattr(made, name, self._between(before, after))
        return made

    def _between(self, before: Any, after: Any) -> Any:
        if hasattr(after, "__dict__"):
            return self._alike(before, after)
        first, last = np.asarray(before), np.asarray(after)
        if first.dtype.kind != "i" or first.shape != last.shape or not first.ndim:
            raise NotAlikeError("fields")
        found = self._line(first, last)
        return found.tolist() if isinstance(after, list) else found.astype(last.dtype)

    def _line(self, before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.int64]:
        """Integers of the program, each on the line through those of the pair."""
        pairs = zip(before.ravel().tolist(), after.ravel().tolist(), strict=True)
        return np.array([self._integer(*pair) for pair in pairs], np.int64).reshape(after.shape)

    def _integer(self, before: int, after: int) -> int:
        """It changes with the size of which its change is the plainest multiple: whole, if there is one, and small."""
        if before == after:
            return after
        if (before, after) not in self._lines:
            found = (
                (Fraction(after - before, last - first), size - last)
                for (first, last), size in zip(self._sizes, _sizes(self._program), strict=True)
                if first != last
            )
            rise, steps = min(found, key=lambda each: (each[0].denominator, abs(each[0].numerator)))
            if (rise * steps).denominator != 1:
                raise NotAlikeError("sizes")
            self._lines[before, after] = after + int(rise * steps)
        return self._lines[before, after]


def _bytes(buffer: Any) -> NDArray[np.uint8]:
    """A module's buffer as a file holds it."""
    flat: NDArray[np.uint8] = buffer.detach().numpy().ravel().view(np.uint8)
    return flat


def _names(buffers: Mapping[str, Any]) -> dict[bytes, set[str]]:
    """The names of a module's buffers by what they hold."""
    names: dict[bytes, set[str]] = {}
    for name, buffer in buffers.items():
        names.setdefault(_bytes(buffer).tobytes(), set()).add(name)
    return names


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
