"""Graphs of XNNPACK that a reader refuses, one rule broken in each, and their sound neighbours.

The fields' numbers are those of XNNPACK's runtime_schema.fbs in ExecuTorch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.golden.flat_tables import Number, Numbers, Table, flatbuffer, u8, u32, u64

ALIGNMENT = 16
CONSTANT_BYTES = 64
"""Of each of two constants, numbered 1 and 2, which share them."""
NO_ID = 0xFFFFFFFF
FLOAT, DYNAMIC_INT8 = 1, 9
INPUT, OUTPUT = 1, 2
ADD, FULLY_CONNECTED, TRANSPOSE, CONV, RESIZE, DEPTHWISE_CONV, CONVERT, RESHAPE, SLICE = 1, 2, 5, 7, 9, 13, 18, 20, 35
X, W, Y, HIDDEN, BIAS, ROWS, RESULT = range(7)
"""The values' numbers."""


@dataclass(frozen=True)
class Graph:
    """A delegate's data, and whether a reader takes it."""

    name: str
    data: bytes
    sound: bool = False


def _tensor(
    number: int, shape: tuple[int, ...], constant: int = 0, external: int | None = NO_ID, flags: int = 0
) -> Table:
    fields: dict[int, Any] = {
        0: Number(FLOAT, "int16"),
        1: u32(len(shape)),
        2: Numbers(shape, "uint32"),
        3: u32(constant),
        5: u32(flags),
        6: u32(number),
    }
    return fields if external is None else fields | {4: u32(external)}


def _value(
    number: int, shape: tuple[int, ...] = (4,), external: int | None = NO_ID, flags: int = 0, **changes: Any
) -> Table:
    """A computed one; `external` None: it is not stated. `changes` are fields by f and their number."""
    fields = dict(_tensor(number, shape, external=external, flags=flags))
    return {0: u8(1), 1: fields | {int(key[1:]): value for key, value in changes.items()}}


def _constant(number: int, shape: tuple[int, ...], **changes: Any) -> Table:
    return _value(number, shape, **({"f3": u32(1)} | changes))


_X, _W, _Y = _value(X, external=0, flags=INPUT), _constant(W, (4,)), _value(Y, external=1, flags=OUTPUT)


def _add(left: int, right: int, result: int) -> Table:
    return {0: u8(ADD), 1: {0: u32(left), 1: u32(right), 2: u32(result), 3: u32(0)}}


def _reshape(source: int, result: int, *shape: int) -> Table:
    return {0: u8(RESHAPE), 1: {0: u32(len(shape)), 1: Numbers(shape, "uint32"), 2: u32(source), 3: u32(result)}}


def _fully_connected(source: int, weights: int, bias: int, result: int, flags: int = 0) -> Table:
    return {
        0: u8(FULLY_CONNECTED),
        1: {at: u32(each) for at, each in enumerate((source, weights, bias, result, flags))},
    }


_CONV = {0: 1, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 10: 2, 11: 2, 12: 2, 15: ROWS, 16: W, 17: BIAS, 18: RESULT}
"""A convolution's fields: a padded row above, a kernel of (2, 1), two groups of 2 channels into 2."""


def _conv(kind: int = CONV, **changes: int) -> Table:
    fields = _CONV | {int(key[1:]): value for key, value in changes.items()}
    return {0: u8(kind), 1: {at: u32(number) for at, number in fields.items()}}


def xnnpack(
    values: tuple[Table, ...] = (_X, _W, _Y),
    nodes: tuple[Table, ...] = (_add(X, W, Y),),
    outputs: tuple[int, ...] = (Y,),
    inputs: tuple[int, ...] = (X,),
    constants: tuple[Table, ...] = ({0: u64(0), 1: u64(0)}, *({0: u64(0), 1: u64(CONSTANT_BYTES)},) * 2),
    externals: int = 2,
    magic: bytes = b"XH00",
    identifier: bytes = b"XN01",
) -> bytes:
    """A delegate's data: y = x + w, or what is said otherwise."""
    graph = flatbuffer(
        {
            1: list(nodes),
            2: list(values),
            3: u32(externals),
            4: Numbers(inputs, "uint32"),
            5: Numbers(outputs, "uint32"),
            8: list(constants),
        },
        identifier,
    )
    begin = 32
    end = begin + -(-len(graph) // ALIGNMENT) * ALIGNMENT
    header = struct.pack("<4x4sHIIIQ", magic, 30, begin, len(graph), end, CONSTANT_BYTES)
    return header.ljust(begin, b"\0") + graph.ljust(end - begin, b"\0") + bytes(CONSTANT_BYTES)


def graphs() -> Iterator[Graph]:
    """All of them."""
    yield Graph("sound", xnnpack(), True)
    yield from _parts()
    yield from _values()
    yield from _nodes()
    yield from _resizes()
    yield from _order()
    yield from _dense()
    yield from _convolutions()


def _parts() -> Iterator[Graph]:
    yield Graph("another header", xnnpack(magic=b"XH99"))
    yield Graph("another graph", xnnpack(identifier=b"XN99"))
    yield Graph("data cut off", xnnpack()[:64])
    yield Graph("an output that is not there", xnnpack(outputs=(7,)))
    for name, offset, size in (
        ("behind the constants", CONSTANT_BYTES - 8, 16),
        ("that overflows", (1 << 64) - 8, 16),
    ):
        constants = ({0: u64(0), 1: u64(0)}, {0: u64(offset), 1: u64(size)})
        yield Graph(f"a constant {name}", xnnpack(constants=constants))
    named = ({0: u64(0), 1: u64(0)}, {0: u64(0), 1: u64(16), 2: "w"})
    yield Graph("named data that is not there", xnnpack(constants=named))


def _values() -> Iterator[Graph]:
    last = {"external": 1, "flags": OUTPUT}
    for name, values in {
        "a value twice": (_X, _W, _value(X, **last)),
        "an external beyond the externals": (_X, _W, _value(Y, external=7, flags=OUTPUT)),
        "an external twice": (_X, _W, _value(Y, external=0, flags=OUTPUT)),
        "an external by default that is another's": (_X, _W, _value(Y, external=None, flags=OUTPUT)),
        "a computed value that claims the first external by default": (_X, _W, _Y, _value(HIDDEN, external=None)),
        "an external that is neither an input nor an output": (_X, _W, _value(Y, external=1)),
        "an external that is an input and an output": (_X, _W, _value(Y, external=1, flags=INPUT | OUTPUT)),
        "no external that is an output": (_X, _W, _Y, _value(HIDDEN, flags=OUTPUT)),
        "an external that is a constant": (_value(X, external=0, flags=INPUT, f3=u32(1)), _W, _Y),
        "a constant larger than its bytes": (_X, _constant(W, (CONSTANT_BYTES // 4 + 1,)), _Y),
        "a constant beyond the constants": (_X, _constant(W, (4,), f3=u32(9)), _Y),
        "a type that is none": (_X, _W, _value(Y, **last, f0=Number(99, "int16"))),
        "2^30 elements": (_X, _W, _value(Y, (1 << 30,), **last)),
        "seven axes": (_X, _W, _value(Y, (1,) * 7, **last)),
        "another number of axes": (_X, _W, _value(Y, **last, f1=u32(3))),
    }.items():
        yield Graph(name, xnnpack(values))
    values = (_value(X, external=None, flags=INPUT), _W, _Y)
    yield Graph("an external by default", xnnpack(values), True)


def _nodes() -> Iterator[Graph]:
    for name, node in {
        "an unknown node": {0: u8(99), 1: {0: u32(X), 1: u32(Y)}},
        "a node that reads what is not there": _add(X, 9, Y),
        "a node that writes what is not there": _add(X, W, 9),
        "a transpose of other axes": {
            0: u8(TRANSPOSE),
            1: {0: u32(1), 1: Numbers([5], "uint32"), 2: u32(X), 3: u32(Y)},
        },
        "a slice out of range": {
            0: u8(SLICE),
            1: {0: u32(1), 1: Numbers([1], "uint32"), 2: Numbers([4], "uint32"), 3: u32(X), 4: u32(Y)},
        },
    }.items():
        yield Graph(name, xnnpack(nodes=(node,)))


def _resizes() -> Iterator[Graph]:
    """X as an image of 2 by 2, resized, and as four numbers again."""
    values = (_X, _W, _Y, _value(HIDDEN, (1, 2, 2, 1)), _value(RESULT, (1, 4, 1, 1)))
    for name, sides, source, sound in (
        ("sound: a resize", (4, 1), HIDDEN, True),
        ("a resize to other sides than its result's", (9, 1), HIDDEN, False),
        ("a resize to nothing", (0, 1), HIDDEN, False),
        ("a resize of what is no image", (4, 1), X, False),
    ):
        resize = {0: u8(RESIZE), 1: {0: u32(sides[0]), 1: u32(sides[1]), 2: u32(source), 3: u32(RESULT)}}
        nodes = (_reshape(X, HIDDEN, 1, 2, 2, 1), resize, _reshape(RESULT, Y, 4))
        yield Graph(name, xnnpack(values, nodes), sound)


def _order() -> Iterator[Graph]:
    values = (_X, _W, _Y, _value(HIDDEN), _value(BIAS))
    first, second = _add(X, W, HIDDEN), _add(HIDDEN, HIDDEN, Y)
    yield Graph("a value between nodes", xnnpack(values, (first, second)), True)
    for name, nodes in {
        "a node that writes its input": (_add(X, W, X),),
        "a node that writes a constant": (_add(X, W, W), _add(X, W, Y)),
        "a node that writes what it reads": (first, _add(HIDDEN, W, HIDDEN), second),
        "a value written twice": (first, first, second),
        "an output written twice": (_add(X, W, Y), _add(X, X, Y)),
        "a node that reads what comes later": (second, first),
        "a node that reads its own result": (_add(X, HIDDEN, HIDDEN), second),
        "a node that reads what nothing writes": (_add(X, HIDDEN, Y),),
        "a node that reads an output before it is written": (_add(X, Y, HIDDEN), second),
        "a node whose second input nothing writes": (first, _add(HIDDEN, BIAS, Y)),
    }.items():
        yield Graph(name, xnnpack(values, nodes))


_DENSE: Mapping[str, Table] = {
    "x": _X,
    "y": _Y,
    "weights": _constant(W, (3, 4)),
    "hidden": _value(HIDDEN, (3,)),
    "bias": _constant(BIAS, (3,), f3=u32(2)),
}
"""Values of two fully connected nodes with the same weights, once as they are and once swapped."""
_INTO, _BACK = _fully_connected(X, W, BIAS, HIDDEN), _fully_connected(HIDDEN, W, NO_ID, Y, flags=1)


def _dense() -> Iterator[Graph]:
    def graph(name: str, into: Table = _INTO, back: Table = _BACK, sound: bool = False, **changes: Table) -> Graph:
        values = tuple((_DENSE | changes).values())
        return Graph(f"fully connected: {name}", xnnpack(values, (into, back)), sound)

    yield graph("sound", sound=True)
    yield graph("swapped where they are not", into=_fully_connected(X, W, BIAS, HIDDEN, flags=1))
    yield graph("not swapped where they are", back=_fully_connected(HIDDEN, W, NO_ID, Y))
    yield graph("weights of more inputs", weights=_constant(W, (3, 5)))
    yield graph("weights of fewer inputs", weights=_constant(W, (3, 3)))
    yield graph("weights of one axis", weights=_constant(W, (4,)))
    yield graph("weights of three axes", weights=_constant(W, (1, 3, 4)))
    yield graph("computed weights", into=_fully_connected(X, X, NO_ID, HIDDEN))
    made = _fully_connected(HIDDEN, ROWS, NO_ID, Y)
    rows = {"rows": _value(ROWS, (4, 3))}
    values = tuple((_DENSE | rows).values())
    yield Graph("fully connected: weights that a node made", xnnpack(values, (_INTO, _reshape(X, ROWS, 4, 3), made)))
    yield graph("an input without axes", hidden=_value(HIDDEN, ()))
    for name, shape in {"more": (4,), "fewer": (2,), "two axes of": (1, 3), "no axis of": ()}.items():
        yield graph(f"a bias of {name} channels", bias=_constant(BIAS, shape, f3=u32(2)))
    yield graph("a bias of the swapped weights' inputs", back=_fully_connected(HIDDEN, W, BIAS, Y, flags=1))
    yield graph("a bias that is the weights", into=_fully_connected(X, W, W, HIDDEN))
    yield graph("a computed bias", into=_fully_connected(X, W, X, HIDDEN))
    yield graph("a bias that nothing writes", bias=_value(BIAS, (3,)))
    yield graph("a bias that is not there", into=_fully_connected(X, W, 9, HIDDEN))


_ROWS = (_X, _Y, _constant(BIAS, (4,), f3=u32(2)), _value(RESULT, (1, 1, 1, 4)))
_BEFORE, _AFTER = _reshape(X, ROWS, 1, 1, 1, 4), _reshape(RESULT, Y, 4)


def _convolution(
    name: str,
    node: Table,
    weights: tuple[int, ...] = (4, 2, 1, 2),
    rows: tuple[int, ...] = (1, 1, 1, 4),
    more: tuple[Table, ...] = (),
    sound: bool = False,
) -> Graph:
    values = (*_ROWS, _value(ROWS, rows), _constant(W, weights), *more)
    return Graph(f"a convolution: {name}", xnnpack(values, (_BEFORE, node, _AFTER)), sound)


def _convolutions() -> Iterator[Graph]:
    conv, depthwise = _conv(), _conv(DEPTHWISE_CONV, f10=1, f11=1, f12=4)
    yield _convolution("sound", conv, sound=True)
    yield _convolution("no bias", _conv(f17=NO_ID), sound=True)
    yield _quantized()
    for name, weights in {
        "the kernel's axes swapped": (4, 1, 2, 2),
        "outputs of one group": (2, 2, 1, 2),
        "outputs last": (2, 2, 1, 4),
        "weights of a depthwise one": (1, 2, 1, 4),
        "weights of three axes": (4, 2, 2),
        "weights of five axes": (4, 2, 1, 2, 1),
    }.items():
        yield _convolution(name, conv, weights)
    most = NO_ID
    for field, number in {4: 1, 5: 2, 10: 1, 11: 3, 12: 1}.items():
        for value in (number, 0, most):
            yield _convolution(f"the number {value} in the field {field}", _conv(**{f"f{field}": value}))
    yield _convolution("numbers of 2^64 in all", _conv(f10=most, f11=most, f12=most))
    yield _convolution("an input of three axes", conv, rows=(1, 1, 4))
    yield _convolution("an input of other channels", conv, rows=(1, 1, 1, 5))
    yield _convolution("channels where the columns are", conv, rows=(1, 1, 4, 1))
    other = _value(HIDDEN, (3,), f3=u32(2))
    yield _convolution("a bias of fewer channels", _conv(f17=HIDDEN), more=(other,))
    yield _convolution("a bias that is the weights", _conv(f17=W))
    yield _convolution("a computed bias", _conv(f17=X))
    yield _convolution("computed weights", _conv(f4=1, f10=4, f11=1, f12=1, f16=ROWS, f17=NO_ID))
    yield _convolution("depthwise", depthwise, (1, 2, 1, 4), sound=True)
    for name, weights in {
        "weights of a plain one": (4, 2, 1, 1),
        "the kernel's axes swapped": (1, 1, 2, 4),
        "more channels": (1, 2, 1, 8),
        "two first": (2, 2, 1, 4),
    }.items():
        yield _convolution(f"depthwise: {name}", depthwise, weights)
    yield _convolution("depthwise: groups of two channels", _conv(DEPTHWISE_CONV, f10=2, f11=2, f12=2), (1, 2, 1, 4))
    yield _convolution("depthwise: a computed bias", _conv(DEPTHWISE_CONV, f10=1, f11=1, f12=4, f17=X), (1, 2, 1, 4))
    yield _convolution("depthwise: fewer groups", _conv(DEPTHWISE_CONV, f10=1, f11=2, f12=2), (1, 2, 1, 4))


def _quantized() -> Graph:
    """Of values that are quantized on the way: they state their channels before their rows."""
    tensor = dict(_tensor(HIDDEN, (1, 4, 1, 1))) | {0: Number(DYNAMIC_INT8, "int16")}
    value = {0: u8(2), 1: {0: tensor, 1: u8(3), 2: {0: Number(3)}}}
    convert = {0: u8(CONVERT), 1: {0: u32(ROWS), 1: u32(HIDDEN), 2: u32(0)}}
    values = (*_ROWS, _value(ROWS, (1, 1, 1, 4)), _constant(W, (4, 2, 1, 2)), value)
    nodes = (_BEFORE, convert, _conv(f15=HIDDEN), _AFTER)
    return Graph("a convolution: channels before rows", xnnpack(values, nodes), True)
