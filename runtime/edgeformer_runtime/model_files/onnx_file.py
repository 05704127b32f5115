"""Looks at an `.onnx` file before ONNX Runtime opens it: it would follow references out of the bundle."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.model_files import Broken, Contents, IndexTrace, Shape, check_shape, refuse, shown
from edgeformer_runtime.model_files.encodings import Fields, WireReader, one, signed, text
from edgeformer_runtime.model_files.onnx_shapes import (
    GATHERS,
    MOVES,
    OWN_OPERATORS,
    RULES,
    Attribute,
    Call,
    indexed_rows,
)
from edgeformer_runtime.model_files.onnx_values import (
    DATA_TYPE,
    DIMS,
    ELSEWHERE,
    ENTRY,
    LOCATION,
    NAME,
    TENSOR,
    TYPES,
    Known,
    known_constant,
    read_tensor,
)
from edgeformer_runtime.model_files.shape_rules import check_live

CONSTANT = "Constant"
MODEL: Fields = {
    1: "int", 2: "bytes", 3: "bytes", 4: "bytes", 5: "int", 6: "bytes", 7: "bytes", 8: "bytes", 14: "bytes"
}  # fmt: skip
OPSET: Fields = {1: "bytes", 2: "int"}
GRAPH: Fields = {
    1: "bytes", 2: "bytes", 5: "bytes", 10: "bytes", 11: "bytes", 12: "bytes", 13: "bytes", 14: "bytes", 16: "bytes"
}  # fmt: skip
NODE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes", 5: "bytes", 6: "bytes", 7: "bytes", 9: "bytes"}
ATTRIBUTE: Fields = {
    1: "bytes", 2: "float", 3: "int", 4: "bytes", 5: "bytes", 7: "floats", 8: "ints", 9: "bytes", 10: "bytes",
    13: "bytes", 20: "int",
}  # fmt: skip
# AttributeProto.AttributeType of each of these fields: f, i, s, t, floats, ints, strings, tensors.
KINDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9, 9: 10}
VALUE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes"}
TYPE: Fields = {1: "bytes", 6: "bytes"}
TENSOR_TYPE: Fields = {1: "int", 2: "bytes"}
SHAPE: Fields = {1: "bytes"}
DIMENSION: Fields = {1: "int", 2: "bytes", 3: "bytes"}
IR_VERSIONS = range(3, 14)
DOMAINS = {"": "", "ai.onnx": "", "com.microsoft": "com.microsoft"}
_EMPTY = memoryview(b"")


class Elsewhere(NamedTuple):
    """A constant whose bytes lie in another file of the model's folder."""

    name: str
    dtype: str
    shape: Shape
    file: str
    offset: int
    length: int


def constants_elsewhere(data: memoryview) -> list[Elsewhere]:
    """The constants of a file that `check_onnx` took, as far as they lie in others and numpy has their type."""
    reader = WireReader(strict=True)
    graph = reader.message(one(reader.message(data, MODEL, "the model"), 7), GRAPH, "the graph")
    found = []
    for each in graph.get(5, ()):
        tensor = reader.message(each, TENSOR, "a tensor")
        bits, _, dtype = TYPES[one(tensor, DATA_TYPE)]
        if one(tensor, LOCATION, 0) == 1 and bits == np.dtype(dtype).itemsize * 8:
            entries = [reader.message(entry, ENTRY, "a tensor") for entry in tensor[ELSEWHERE]]
            place = {text(one(entry, 1), "a tensor"): text(one(entry, 2), "a tensor") for entry in entries}
            shape = tuple(signed(size) for size in tensor.get(DIMS, ()))
            name = text(one(tensor, NAME), "a tensor")
            found.append(Elsewhere(name, dtype, shape, place["location"], int(place["offset"]), int(place["length"])))
    return found


class Declared(NamedTuple):
    """An input or output of the graph; None among its sizes: the length, which is symbolic."""

    name: str
    sizes: tuple[int | None, ...]
    dtype: int

    def at(self, length: int) -> Shape:
        """Its shape for inputs of that length."""
        return tuple(length if size is None else size for size in self.sizes)


def check_onnx(data: memoryview, sizes: Mapping[str, int], programs: list[ProgramSpec]) -> Contents:
    """Refuse a file that breaks a rule of BUNDLE.md.

    Args:
        data: the whole file.
        sizes: the listed files of the model's folder, by their names in it.
        programs: those that the manifest says this file is.

    Returns:
        How often each operator occurs, and the rows of the tables that inputs index.

    Raises:
        Broken: says which rule and where.
    """
    reader = WireReader(strict=True)
    model = reader.message(data, MODEL, "the model")
    if one(model, 1, 0) not in IR_VERSIONS:
        refuse(f"it has the ir_version {one(model, 1, 0)}: expected 3 to 13")
    for each in model.get(8, ()):
        _domain(text(one(reader.message(each, OPSET, "an opset"), 1, _EMPTY), "an opset"))
    graph = one(model, 7)
    if graph is None:
        refuse("it has no graph: expected an ONNX model")
    found = _Graph(reader, graph, sizes, programs)
    return Contents(found.counts, {program.name: found.rows for program in programs})


def _domain(name: str) -> str:
    if name not in DOMAINS:
        refuse(f"it has operators of the domain {shown(name)}")
    return DOMAINS[name]


class _Graph:
    """The values of a graph, made in the order of its nodes."""

    def __init__(
        self, reader: WireReader, data: memoryview, sizes: Mapping[str, int], programs: list[ProgramSpec]
    ) -> None:
        self._reader = reader
        self._values: dict[str, Known] = {}
        self._types: dict[bytes, tuple[tuple[int | None, ...], int]] = {}
        self._symbol: str | None = None
        self._steps: list[tuple[list[str], list[str]]] = []
        self._computed: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        message = reader.message(data, GRAPH, "the graph")
        inputs = [self._declared(each) for each in message.get(11, ())]
        outputs = [self._declared(each) for each in message.get(12, ())]
        for each in message.get(13, ()):
            self._declared(each)
        length = max(_length(program, inputs, outputs) for program in programs)
        for each in inputs:
            self._make(each.name, Known(check_shape(each.at(length), f"the input {shown(each.name)}"), each.dtype))
        self._trace = IndexTrace(each.name for each in inputs)
        for each in message.get(5, ()):
            self._make(*read_tensor(reader, each, sizes))
        for each in message.get(1, ()):
            self._run(each)
        check_live(self._steps, self._computed)
        self.rows = self._trace.rows({each.name: each.name for each in inputs})
        for each in outputs:
            if each.name not in self._values or self._values[each.name].shape != each.at(length):
                refuse(f"its output {shown(each.name)} is not made as it is declared")

    def _make(self, name: str, value: Known) -> None:
        if not name or name in self._values:
            refuse(f"the value {shown(name)} is made twice")
        self._values[name] = value

    def _declared(self, data: memoryview) -> Declared:
        message = self._reader.message(data, VALUE, "a value")
        name = text(one(message, 1, _EMPTY), "a value")
        data = one(message, 2, _EMPTY)
        return Declared(name, *(self._types.get(bytes(data)) or self._type(data, f"the value {shown(name)}")))

    def _type(self, data: memoryview, what: str) -> tuple[tuple[int | None, ...], int]:
        outer = one(self._reader.message(data, TYPE, what), 1)
        if outer is None:
            refuse(f"{what} is no dense tensor")
        inner = self._reader.message(outer, TENSOR_TYPE, what)
        dtype = one(inner, 1, 0)
        if dtype not in TYPES:
            refuse(f"{what} has the type {dtype}, which is no dense number")
        sizes = tuple(
            self._size(self._reader.message(each, DIMENSION, what), what)
            for each in self._reader.message(one(inner, 2, _EMPTY), SHAPE, what).get(1, ())
        )
        check_shape([size for size in sizes if size is not None], what)
        self._types[bytes(data)] = sizes, dtype  # many values have one type
        return sizes, dtype

    def _size(self, dimension: Mapping[int, list[Any]], what: str) -> int | None:
        """A number, or None for the one length of the file that is symbolic."""
        size, symbol = one(dimension, 1), text(one(dimension, 2, _EMPTY), what)
        if size is not None and not symbol:
            return signed(size)
        if size is not None or not symbol or self._symbol not in (None, symbol):
            refuse(f"{what} has a size that is neither a number nor the file's one symbolic length")
        self._symbol = symbol
        return None

    def _run(self, data: memoryview) -> None:
        message = self._reader.message(data, NODE, "a node")
        operator = text(one(message, 4, _EMPTY), "a node")
        what = f"the operator {shown(operator)}"
        inputs = [text(each, what) for each in message.get(1, ())]
        outputs = [text(each, what) for each in message.get(2, ())]
        domain = _domain(text(one(message, 7, _EMPTY), what))
        attributes: dict[str, Attribute] = {}
        for each in message.get(5, ()):
            key, value = self._attribute(each, what)
            if key in attributes:
                refuse(f"{what} has the attribute {shown(key)} twice")
            attributes[key] = value
        self.counts[operator] += 1
        try:
            for name, known in zip(outputs, self._results(operator, domain, inputs, attributes, outputs), strict=True):
                if name:
                    self._make(name, known)
                    self._computed[name] = math.prod(known.shape)
            self._steps.append((inputs, outputs))
        except Broken as error:
            raise Broken(f"{what} number {sum(self.counts.values())}: {error}") from None

    def _results(
        self, operator: str, domain: str, inputs: list[str], attributes: dict[str, Attribute], outputs: list[str]
    ) -> list[Known]:
        if operator == CONSTANT and not domain and not inputs and len(outputs) == 1 and len(attributes) == 1:
            return [_constant(self._reader, *attributes.popitem())]
        if operator not in RULES or (domain == "com.microsoft") != (operator in OWN_OPERATORS):
            refuse("it is none that a reader knows: see BUNDLE.md")
        operands = []
        for name in inputs:
            if name and name not in self._values:
                refuse(f"it reads {shown(name)}, which nothing before it makes")
            operands.append(self._values[name] if name else None)
        call = Call(operands, attributes, len(outputs), self._symbol is not None)
        found = RULES[operator](call)
        if operator in MOVES:
            self._trace.move(inputs[0], outputs)
        elif operator in GATHERS:
            self._trace.index(inputs[1], indexed_rows(operator, call))
        if len(outputs) > len(found):
            refuse(f"it has {len(outputs)} outputs")
        return [
            each if isinstance(each, Known) else Known(check_shape(each, "its result"))
            for each in found[: len(outputs)]
        ]

    def _attribute(self, data: memoryview, what: str) -> tuple[str, Attribute]:
        message = self._reader.message(data, ATTRIBUTE, f"an attribute of {what}")
        name = text(one(message, 1, _EMPTY), what)
        kind = one(message, 20, 0)
        field = KINDS.get(kind)
        if field is None or any(other in message for other in KINDS.values() if other != field):
            refuse(f"{what} has the attribute {shown(name)} of the kind {kind}: expected numbers, texts or tensors")
        found: list[Any] = message.get(field, [])
        if field == 3:
            return name, signed(one(message, 3, 0))
        if field == 4:
            return name, text(one(message, 4, _EMPTY), what)
        if field == 8:
            return name, [signed(each) for each in found]
        tensors = [
            read_tensor(self._reader, each, None, f"the tensor {shown(name)}")[1] for each in found if field in (5, 10)
        ]
        return name, tensors[0] if field == 5 and len(tensors) == 1 else None


def _constant(reader: WireReader, name: str, value: Attribute) -> Known:
    if name == "value" and isinstance(value, Known):
        return value
    if name == "value_int" and isinstance(value, int):
        return Known((), 7, lambda: [value])
    if name == "value_ints" and isinstance(value, list):
        return known_constant(reader, (len(value),), 7, lambda: value)
    if name == "value_float":
        return Known((), 1)
    raise Broken(f"it holds the attribute {shown(name)}")


def _length(program: ProgramSpec, inputs: list[Declared], outputs: list[Declared]) -> int:
    """The length that a program gives a graph's symbolic size; 1 where the graph has none.

    Raises:
        Broken: the graph has other inputs or outputs than the manifest states of the program.
    """
    stated = {spec.name: spec.shape for spec in program.inputs}
    lengths = (
        stated[each.name][axis]
        for each in inputs
        for axis, size in enumerate(each.sizes)
        if size is None and axis < len(stated.get(each.name, ()))
    )
    length = next(lengths, 1)
    _compare(program.inputs, inputs, length, "input")
    _compare(program.outputs, outputs, length, "output")
    return length


def _compare(declared: tuple[TensorSpec, ...], found: list[Declared], length: int, what: str) -> None:
    stated = {spec.name: (spec.shape, spec.dtype) for spec in declared}
    if len(found) != len(stated) or {each.name: (each.at(length), TYPES[each.dtype][2]) for each in found} != stated:
        listed = ", ".join(f"{each.name} {TYPES[each.dtype][2]} {each.at(length)}" for each in found[:8])
        refuse(f"it has the {what}s {shown(listed)}, the manifest declares others")
