"""ExecuTorch programs that a reader refuses, one rule broken in each, and their sound neighbours.

The fields' numbers are those of ExecuTorch's program.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.golden.flat_tables import Number, Numbers, Shared, Table, flatbuffer, u8, u32, u64
from tests.golden.hostile_case import Case
from tests.golden.hostile_xnnpack import graphs, xnnpack

FLOAT, LONG = 6, 4
NULL, INT, TENSOR, TENSOR_LIST = 1, 2, 5, 10
KERNEL, DELEGATE, MOVE, JUMP, FREE = 1, 2, 3, 4, 5
X, W, ALPHA, Y = 0, 1, 2, 3
"""The values' numbers."""
CONSTANTS = np.arange(4, dtype="<f4").tobytes()
ALIGNMENT = 16


def _tensor(shape: list[int], buffer: int = 0, place: int | None = None, **changes: Any) -> Table:
    """A value; `changes` are fields by f and their number."""
    fields: dict[int, Any] = {
        0: Number(FLOAT, "int8"),
        1: Number(0),
        2: Numbers(shape),
        3: Numbers(list(range(len(shape))), "uint8"),
        5: u32(buffer),
        7: Number(0, "int8"),
        8: Number(0, "int8"),
    }
    if place is not None:
        fields[6] = {0: u32(1), 1: u32(place), 2: u32(0)}
    fields |= {int(key[1:]): value for key, value in changes.items()}
    return {0: u8(TENSOR), 1: fields}


def _values(**changes: Table) -> list[Table]:
    """x, w, the factor of w, and y; `changes` by the letters x, w, a, y."""
    found = {
        "x": _tensor([4], place=0),
        "w": _tensor([4], buffer=1),
        "a": {0: u8(INT), 1: {0: Number(1, "int64")}},
        "y": _tensor([4], place=16),
    } | changes
    return list(found.values())


def _call(kind: int, number: int, operands: list[int]) -> Table:
    return {0: u8(kind), 1: {0: Number(number), 1: Numbers(operands)}}


_SUM = _call(KERNEL, 0, [X, W, ALPHA, Y, Y])


@dataclass(frozen=True)
class _Program:
    """What can be said otherwise of y = x + w.

    Attributes:
        values, calls, operators, memory: of the method.
        inputs, outputs: the values' numbers.
        delegates: its delegates.
        segments: what lies behind the program; the first one holds the constants.
        more, plan: further fields of the program and of the method, by number.
        magic, size, base: what the extended header says instead of the truth.
    """

    values: list[Table] = field(default_factory=_values)
    calls: tuple[Table, ...] = (_SUM,)
    operators: tuple[tuple[str, str], ...] = (("aten::add", "out"),)
    memory: tuple[int, ...] = (0, 64)
    inputs: tuple[int, ...] = (X,)
    outputs: tuple[int, ...] = (Y,)
    delegates: tuple[Table, ...] = ()
    segments: tuple[bytes, ...] = (CONSTANTS,)
    more: tuple[tuple[int, Any], ...] = ()
    plan: tuple[tuple[int, Any], ...] = ()
    magic: bytes = b"eh00"
    size: int | None = None
    base: int | None = None

    def to_bytes(self) -> bytes:
        """The file."""
        plan: dict[int, Any] = {
            0: "forward",
            2: self.values,
            3: Numbers(self.inputs),
            4: Numbers(self.outputs),
            5: [{2: list(self.calls)}],
            6: [{0: name, 1: overload} for name, overload in self.operators],
            7: list(self.delegates),
            8: Numbers(self.memory, "int64"),
        }
        places, begin = [], 0
        for data in self.segments:
            places.append({0: u64(begin), 1: u64(len(data))})
            begin += -(-len(data) // ALIGNMENT) * ALIGNMENT
        program: dict[int, Any] = {
            0: u32(0),
            1: [plan | dict(self.plan)],
            4: places,
            5: {0: u32(0), 1: Numbers([0, 0], "uint64")},
        }
        body = flatbuffer(program | dict(self.more), b"ET12")
        # The extended header stands between the identifier and the tables: offsets before it grow by its length.
        root = struct.unpack_from("<I", body)[0]
        header_bytes = 32
        size = len(body) + header_bytes
        base = -(-size // ALIGNMENT) * ALIGNMENT
        header = struct.pack("<4sIQQ8x", self.magic, 32, self.size or size, self.base or base)
        text = struct.pack("<I", root + header_bytes) + body[4:8] + header + body[8:]
        text = text.ljust(base, b"\0")
        for data in self.segments:
            text += data.ljust(-(-len(data) // ALIGNMENT) * ALIGNMENT, b"\0")
        return text


def cases() -> Iterator[Case]:
    """All of them."""
    sound = _Program()
    yield _case("sound", sound, True)
    for name, program in (*_methods(), *_tensors(), *_files()):
        yield _case(name, program, False)
    yield _case("an operator that is not listed", sound, False, operators={})
    yield _case("another input than declared", sound, False, inputs=[5])
    data = sound.to_bytes()
    for name, changed in {
        "no bytes": b"",
        "cut off": data[:100],
        "another format": data[:4] + b"ET99" + data[8:],
        "a root beyond the file": struct.pack("<I", 1 << 30) + data[4:],
    }.items():
        yield _of(name, changed, False)
    for name, program, operators in _repeated():
        yield _case(name, program, False, operators=operators)
    for name, program, is_sound in _tables():
        yield _case(name, program, is_sound, operators={"quantized_decomposed::embedding_byte.out": 1})
    delegate = {"XnnpackBackend": 1}
    for name, program in _delegates():
        yield _case(f"a delegate: {name}", program, False, operators=delegate)
    for graph in graphs():
        yield _case(f"a delegate: {graph.name}", _delegated(graph.data), graph.sound, operators=delegate)


def _methods() -> Iterator[tuple[str, _Program]]:
    sound = _Program()
    yield "an unknown kernel", replace(sound, operators=(("aten::evil", "out"),))
    yield "a kernel beyond the kernels", replace(sound, calls=(_call(KERNEL, 7, [X, W, ALPHA, Y, Y]),))
    yield "a value beyond the values", replace(sound, calls=(_call(KERNEL, 0, [X, 99, ALPHA, Y, Y]),))
    yield "a value before the values", replace(sound, calls=(_call(KERNEL, 0, [X, -1, ALPHA, Y, Y]),))
    yield "an operand less", replace(sound, calls=(_call(KERNEL, 0, [X, W, Y, Y]),))
    yield "no operands", replace(sound, calls=(_call(KERNEL, 0, []),))
    yield "an operand of another kind", replace(sound, calls=(_call(KERNEL, 0, [X, ALPHA, ALPHA, Y, Y]),))
    yield "a result that is a constant", replace(sound, calls=(_call(KERNEL, 0, [X, W, ALPHA, W, W]),))
    yield "a result that is a number", replace(sound, calls=(_call(KERNEL, 0, [X, W, ALPHA, ALPHA, ALPHA]),))
    yield "a result that is not returned", replace(sound, calls=(_call(KERNEL, 0, [X, W, ALPHA, Y, X]),))
    yield "a jump", replace(sound, calls=({0: u8(JUMP), 1: {0: Number(ALPHA), 1: Number(0)}},))
    yield "a move", replace(sound, calls=({0: u8(MOVE), 1: {0: Number(X), 1: Number(Y)}},))
    yield "an unknown instruction", replace(sound, calls=({0: u8(9), 1: {0: Number(0)}},))
    yield "an instruction without arguments", replace(sound, calls=({0: u8(KERNEL)},))
    yield "a free beyond the values", replace(sound, calls=({0: u8(FREE), 1: {0: Number(99)}},))
    yield "an input beyond the values", replace(sound, inputs=(99,))
    yield "an output that is a number", replace(sound, outputs=(ALPHA,))
    yield "two chains", replace(sound, plan=((5, [{2: [_SUM]}, {2: [_SUM]}]),))
    yield "no chain", replace(sound, plan=((5, []),))
    yield "2 GB planned", replace(sound, memory=(0, 1 << 31))
    yield "memory that is negative", replace(sound, memory=(0, -1))
    yield "another method", replace(sound, plan=((0, "other"),))


def _tensors() -> Iterator[tuple[str, _Program]]:
    sound = _Program()
    for name, value in {
        "a type that is none": _tensor([4], place=16, f0=Number(99, "int8")),
        "a negative size": _tensor([-4], place=16),
        "2^30 elements": _tensor([1 << 15, 1 << 15], place=16),
        "nine axes": _tensor([1] * 9, place=16),
        "an order of other axes": _tensor([4], place=16, f3=Numbers([3], "uint8")),
        "an order of no axes": _tensor([4], place=16, f3=Numbers([], "uint8")),
        "an offset of elements": _tensor([4], place=16, f1=Number(1)),
        "a sparse layout": _tensor([4], place=16, f7=Number(1, "int8")),
        "a shape without bound": _tensor([4], place=16, f8=Number(2, "int8")),
        "memory behind the plan": _tensor([4], place=56),
        "memory of 2^32 and more": _tensor([4], f6={0: u32(1), 1: u32(0), 2: u32(1)}),
        "memory of another plan": _tensor([4], f6={0: u32(2), 1: u32(0), 2: u32(0)}),
        "memory of the inputs": _tensor([4], f6={0: u32(0), 1: u32(0), 2: u32(0)}),
        "another file": _tensor([4], place=16, f9={2: Number(1, "int8")}),
        "a device": _tensor([4], place=16, f9={3: Number(1, "int8")}),
        "a value of an unknown kind": {0: u8(99), 1: {}},
        "a value without content": {0: u8(TENSOR)},
        "a list of what is no tensor": {0: u8(TENSOR_LIST), 1: {0: Numbers([ALPHA])}},
        "a list beyond the values": {0: u8(TENSOR_LIST), 1: {0: Numbers([99])}},
    }.items():
        yield name, replace(sound, values=_values(y=value))
    yield "a constant larger than its bytes", replace(sound, values=_values(w=_tensor([5], buffer=1)))
    yield "a constant beyond the constants", replace(sound, values=_values(w=_tensor([4], buffer=9)))
    state = _tensor([4], buffer=1, place=0, f9={0: u64(7)})
    yield "a state beyond the states", replace(sound, values=_values(x=state))


def _tables() -> Iterator[tuple[str, _Program, bool]]:
    """A row of an int8 table of two rows: its kernel ends the process for a row that is not there."""
    table, scales, absent, integer, indices, row = 1, 2, 3, 4, 5, 6
    take = _call(KERNEL, 0, [table, scales, absent, integer, integer, indices, row, row])

    def taking(number: int, index: Table | None = None, calls: tuple[Table, ...] = (take,)) -> _Program:
        constants = bytes(16) + np.ones(4, "<f4").tobytes() + struct.pack("<qq", number, 0)
        values = [
            _tensor([4], place=0),
            _tensor([2, 4], buffer=1, f0=Number(0, "int8")),
            _tensor([2], buffer=2),
            {0: u8(NULL), 1: {}},
            {0: u8(INT), 1: {0: Number(0, "int64")}},
            _tensor([1], buffer=3, f0=Number(LONG, "int8")) if index is None else index,
            _tensor([4], place=16),
            _tensor([1], place=36, f0=Number(LONG, "int8")),
        ]
        return _Program(
            values=values,
            calls=calls,
            operators=(("quantized_decomposed::embedding_byte", "out"),),
            outputs=(row,),
            segments=(constants,),
            more=((5, {0: u32(0), 1: Numbers([0, 0, 16, 32], "uint64")}),),
        )

    yield "the last row of a table", taking(1), True
    yield "a row behind a table", taking(2), False
    yield "a row before a table", taking(-1), False
    yield "a row that is computed", taking(0, _tensor([1], place=32, f0=Number(LONG, "int8"))), False


def _files() -> Iterator[tuple[str, _Program]]:
    sound = _Program()
    yield "no extended header", replace(sound, magic=b"eh99")
    yield "a program longer than the file", replace(sound, size=1 << 40)
    yield "a program of 2^63", replace(sound, size=1 << 63)
    yield "segments behind the file", replace(sound, base=1 << 40)
    yield "segments inside the program", replace(sound, base=40)
    for name, offset, size in (("behind the file", 0, 1 << 40), ("that overflows", (1 << 64) - 16, 32)):
        yield f"a segment {name}", replace(sound, more=((4, [{0: u64(offset), 1: u64(size)}]),))
    yield (
        "constants of a segment that is not there",
        replace(sound, more=((5, {0: u32(5), 1: Numbers([0, 0], "uint64")}),)),
    )
    yield "a constant behind its segment", replace(sound, more=((5, {0: u32(0), 1: Numbers([0, 99], "uint64")}),))
    yield "constants in the program", replace(sound, more=((2, [{0: Numbers([1] * 16, "uint8")}]),))
    yield "a delegate's data in the program", replace(sound, more=((3, [{0: Numbers([1] * 16, "uint8")}]),))
    named = {0: "w", 1: u32(0)}
    yield "named data twice", replace(sound, more=((7, [named, named]),))
    yield "named data in no segment", replace(sound, more=((7, [{0: "w", 1: u32(9)}]),))


def _delegated(
    graph: bytes | None = None, name: str = "XnnpackBackend", segment: int = 1, operands: tuple[int, ...] = (X, Y)
) -> _Program:
    data = xnnpack() if graph is None else graph
    delegate = {0: name, 1: {0: Number(1, "int8"), 1: u32(segment)}}
    return _Program(
        calls=(_call(DELEGATE, 0, list(operands)),), operators=(), delegates=(delegate,), segments=(CONSTANTS, data)
    )


def _delegates() -> Iterator[tuple[str, _Program]]:
    yield "another backend", _delegated(name="EvilBackend")
    yield "data in no segment", _delegated(segment=9)
    yield "a number as an operand", _delegated(operands=(X, ALPHA))
    yield "an operand less", _delegated(operands=(X,))
    yield "no data", _delegated(b"")


def _repeated() -> Iterator[tuple[str, _Program, dict[str, int]]]:
    """Small files that refer to one thing so often that looking at it takes minutes, and gigabytes."""
    times = 1500
    lists = Shared({0: u8(TENSOR_LIST), 1: {0: Numbers([X] * times)}}, times)
    yield (
        "a list of values again and again",
        replace(_Program(), plan=((2, [*_values(), lists]),)),
        {"aten::add.out": 1},
    )
    delegated = _delegated(xnnpack(inputs=(X,) * times))
    calls = Shared(delegated.calls[0], times)
    yield "a delegate again and again", replace(delegated, plan=((5, [{2: [calls]}]),)), {"XnnpackBackend": times}


def _case(
    name: str,
    program: _Program,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: list[int] | None = None,
) -> Case:
    return _of(name, program.to_bytes(), sound, operators, inputs)


def _of(
    name: str,
    data: bytes,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: list[int] | None = None,
) -> Case:
    stated = {"aten::add.out": 1} if operators is None else operators
    return Case(f"executorch: {name}", "executorch", {"model.pte": data}, "forward", inputs or [4], [4], stated, sound)
