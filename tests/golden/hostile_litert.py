"""TensorFlow Lite models that a reader refuses, one rule broken in each, and their sound neighbours."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.golden.hostile_case import Case

Edit = Callable[[Any], object]
X, W, Y = 0, 1, 2
"""The tensors' numbers."""


def cases() -> Iterator[Case]:
    """All of them."""
    yield _case("sound", lambda _: None, True)
    yield _case("sound: a slice", _slice([1, 0], [1, 4], [1, 4]), True, {"SLICE": 1, "ADD": 1}, (2, 4), (1, 4))
    for name, edit in _edits():
        yield _case(name, edit, False)
    yield _case("an operator that is not listed", lambda _: None, False, {})
    yield _case("another input than declared", lambda _: None, False, inputs=(5,))
    for name, begins, sizes in (
        ("out of range", [1, 0], [2, 4]),
        ("from behind", [-1, 0], [1, 4]),
        ("of 2^31 - 1", [0, 0], [(1 << 31) - 1, 4]),
        ("of too few axes", [0], [1]),
    ):
        yield _case(f"a slice {name}", _slice(begins, sizes, [1, 4]), False, {"SLICE": 1, "ADD": 1}, (2, 4), (1, 4))
    for name, sides, sound in (
        ("sound: a resize", [2, 4], True),
        ("a resize to nothing", [0, 4], False),
        ("a resize without end", [1 << 30, 4], False),
        ("a resize of three sides", [2, 4, 1], False),
    ):
        counts = {"RESIZE_BILINEAR": 1, "ADD": 1}
        yield _case(name, _resize(sides), sound, counts, (1, 2, 2, 1), (1, 2, 4, 4))
    yield from _bytes()


def _edits() -> Iterator[tuple[str, Edit]]:
    yield "sparsity", _sparse
    yield "a loop that calls itself", _operator("WHILE", schema.BuiltinOptions.WhileOptions, schema.WhileOptionsT())
    yield "a branch", _operator("IF", schema.BuiltinOptions.IfOptions, schema.IfOptionsT())
    yield "a call", _operator("CALL_ONCE", schema.BuiltinOptions.CallOnceOptions, schema.CallOnceOptionsT())
    yield "densify", _operator("DENSIFY", schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT())
    yield "a variable", _operator("VAR_HANDLE", 0, None)
    yield "a custom operator", _custom
    yield "options of another operator", _operator("ADD", schema.BuiltinOptions.MulOptions, schema.MulOptionsT())
    yield "a delegate", _operator("DELEGATE", 0, None)
    yield "an unknown code", lambda m: setattr(m.operatorCodes[0], "builtinCode", 5000)
    yield "a code beyond the codes", lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 7)
    yield "a tensor beyond the tensors", lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [X, 99])
    yield "a tensor before the tensors", lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [X, -2])
    yield "an output beyond the tensors", lambda m: setattr(m.subgraphs[0].operators[0], "outputs", [99])
    yield "an output that is a constant", lambda m: setattr(m.subgraphs[0].operators[0], "outputs", [W])
    yield "an operator that reads its output", lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [X, Y])
    yield "a missing operand", lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [X, -1])
    yield "a buffer beyond the buffers", lambda m: setattr(m.subgraphs[0].tensors[W], "buffer", 99)
    yield "a shape larger than its bytes", lambda m: setattr(m.subgraphs[0].tensors[W], "shape", [1 << 20])
    yield "a shape smaller than its bytes", lambda m: setattr(m.subgraphs[0].tensors[W], "shape", [2])
    yield "a negative size", lambda m: setattr(m.subgraphs[0].tensors[Y], "shape", [-4])
    yield "2^30 elements", lambda m: [setattr(each, "shape", [1 << 15, 1 << 15]) for each in m.subgraphs[0].tensors]
    yield "nine axes", lambda m: setattr(m.subgraphs[0].tensors[Y], "shape", [1] * 8 + [4])
    yield "a shape that does not follow", lambda m: setattr(m.subgraphs[0].tensors[Y], "shape", [2, 2])
    yield "a size that is not static", lambda m: setattr(m.subgraphs[0].tensors[X], "shapeSignature", [-1])
    yield "a text", lambda m: setattr(m.subgraphs[0].tensors[W], "type", schema.TensorType.STRING)
    yield "a resource", lambda m: setattr(m.subgraphs[0].tensors[X], "type", schema.TensorType.RESOURCE)
    yield "a state", lambda m: setattr(m.subgraphs[0].tensors[X], "isVariable", True)
    yield "scales of another axis", _scales(3, 0)
    yield "scales of an axis that is not there", _scales(4, 5)
    yield "a graph without a signature", lambda m: m.signatureDefs.clear()
    yield "a signature of another graph", lambda m: setattr(m.signatureDefs[0], "subgraphIndex", 3)
    yield "a signature's tensor beyond", lambda m: setattr(m.signatureDefs[0].inputs[0], "tensorIndex", 99)
    yield "a signature of another name", lambda m: setattr(m.signatureDefs[0], "signatureKey", b"other")
    yield "an input of another name", lambda m: setattr(m.signatureDefs[0].inputs[0], "name", b"z")
    yield "a buffer behind the file", _behind(1 << 20, 16)
    yield "a buffer of 2^63 bytes", _behind(64, 1 << 63)
    yield "a buffer whose end overflows", _behind((1 << 64) - 8, 16)
    yield "4 GB filled", _fill([1 << 30])
    yield "a split by 0", _split


def _bytes() -> Iterator[Case]:
    sound = _packed(_model())
    root = struct.unpack_from("<I", sound)[0]
    table = root - struct.unpack_from("<i", sound, root)[0]
    for name, data in {
        "another format": sound[:4] + b"TFL9" + sound[8:],
        "no bytes": b"",
        "cut off": sound[: len(sound) // 2],
        "a root beyond the file": struct.pack("<I", 1 << 31) + sound[4:],
        "a root before the file": struct.pack("<I", (1 << 32) - 8) + sound[4:],
        "a layout beyond the file": sound[:root] + struct.pack("<i", -(1 << 30)) + sound[root + 4 :],
        "a layout of odd size": sound[:table] + struct.pack("<H", 7) + sound[table + 2 :],
        "a field beyond its table": sound[: table + 8] + struct.pack("<H", 60000) + sound[table + 10 :],
    }.items():
        yield _of(f"{name}", data, False)


def _model() -> Any:
    """y = x + w."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.frombuffer(np.arange(4, dtype="<f4").tobytes(), np.uint8)
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(b"x", [4], 0), _tensor(b"w", [4], 1), _tensor(b"y", [4], 0)]
    graph.inputs, graph.outputs, graph.operators = [X], [Y], [schema.OperatorT()]
    model.subgraphs, model.operatorCodes = [graph], [schema.OperatorCodeT()]
    _set_operator(model, "ADD", schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    graph.operators[0].inputs, graph.operators[0].outputs = [X, W], [Y]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"main", 0
    signature.inputs, signature.outputs = [_named(b"x", X)], [_named(b"y", Y)]
    model.signatureDefs = [signature]
    return model


def _tensor(name: bytes, shape: list[int], buffer: int, kind: int = schema.TensorType.FLOAT32) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, kind
    return tensor


def _named(name: bytes, number: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, number
    return entry


def _set_operator(model: Any, name: str, kind: int, options: Any, number: int = 0) -> None:
    code = getattr(schema.BuiltinOperator, name)
    model.operatorCodes[number].builtinCode = code
    model.operatorCodes[number].deprecatedBuiltinCode = min(code, 127)
    operator = model.subgraphs[0].operators[number]
    operator.opcodeIndex, operator.builtinOptionsType, operator.builtinOptions = number, kind, options


def _operator(name: str, kind: int, options: Any) -> Edit:
    return lambda model: _set_operator(model, name, kind, options)


def _custom(model: Any) -> None:
    _set_operator(model, "CUSTOM", 0, None)
    model.operatorCodes[0].customCode = b"Evil"


def _sparse(model: Any) -> None:
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0], [schema.DimensionMetadataT()]
    indices = schema.Int32VectorT()
    indices.values = [1 << 20] * 4
    dimension = sparsity.dimMetadata[0]
    dimension.format, dimension.arrayIndices = schema.DimensionType.SPARSE_CSR, indices
    dimension.arrayIndicesType = dimension.arraySegmentsType = schema.SparseIndexVector.Int32Vector
    dimension.arraySegments = indices
    model.subgraphs[0].tensors[W].sparsity = sparsity


def _scales(count: int, axis: int) -> Edit:
    def edit(model: Any) -> None:
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint, quantization.quantizedDimension = [1.0] * count, [0] * count, axis
        model.subgraphs[0].tensors[W].quantization = quantization

    return edit


def _behind(offset: int, size: int) -> Edit:
    def edit(model: Any) -> None:
        buffer = model.buffers[1]
        buffer.data, buffer.offset, buffer.size = None, offset, size

    return edit


def _with(model: Any, name: str, inputs: list[int], outputs: list[int], options: tuple[int, Any]) -> None:
    """Put an operator before the sum."""
    model.operatorCodes.append(schema.OperatorCodeT())
    model.subgraphs[0].operators.append(schema.OperatorT())
    _set_operator(model, name, *options, number=1)
    model.subgraphs[0].operators[1].inputs, model.subgraphs[0].operators[1].outputs = inputs, outputs
    model.subgraphs[0].operators.reverse()


def _steering(model: Any, values: list[int]) -> int:
    """A constant of int32; the tensor's number."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.array(values, "<i4").tobytes(), np.uint8)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors.append(_tensor(b"n", [len(values)], len(model.buffers) - 1, schema.TensorType.INT32))
    return len(model.subgraphs[0].tensors) - 1


def _slice(begins: list[int], sizes: list[int], result: list[int]) -> Edit:
    def edit(model: Any) -> None:
        tensors = model.subgraphs[0].tensors
        tensors[X].shape, tensors[Y].shape = [2, 4], result
        numbers = [_steering(model, begins), _steering(model, sizes)]
        tensors.append(_tensor(b"s", result, 0))
        _with(
            model,
            "SLICE",
            [X, *numbers],
            [len(tensors) - 1],
            (schema.BuiltinOptions.SliceOptions, schema.SliceOptionsT()),
        )
        model.subgraphs[0].operators[1].inputs = [len(tensors) - 1, W]

    return edit


def _resize(sides: list[int]) -> Edit:
    """An image of 2 by 2 to one of 2 by 4, if `sides` say so."""

    def edit(model: Any) -> None:
        tensors = model.subgraphs[0].tensors
        tensors[X].shape, tensors[Y].shape = [1, 2, 2, 1], [1, 2, 4, 4]
        number = _steering(model, sides)
        tensors.append(_tensor(b"r", [1, 2, 4, 1], 0))
        options = (schema.BuiltinOptions.ResizeBilinearOptions, schema.ResizeBilinearOptionsT())
        _with(model, "RESIZE_BILINEAR", [X, number], [len(tensors) - 1], options)
        model.subgraphs[0].operators[1].inputs = [len(tensors) - 1, W]

    return edit


def _fill(shape: list[int]) -> Edit:
    def edit(model: Any) -> None:
        number = _steering(model, shape)
        tensors = model.subgraphs[0].tensors
        tensors.append(_tensor(b"f", shape, 0))
        _with(
            model, "FILL", [number, W], [len(tensors) - 1], (schema.BuiltinOptions.FillOptions, schema.FillOptionsT())
        )

    return edit


def _split(model: Any) -> None:
    number = _steering(model, [0])
    _with(model, "SPLIT", [number, X], [], (schema.BuiltinOptions.SplitOptions, schema.SplitOptionsT()))


def _packed(model: Any) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _case(
    name: str,
    edit: Edit,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: tuple[int, ...] = (4,),
    outputs: tuple[int, ...] = (4,),
) -> Case:
    model = _model()
    edit(model)
    return _of(name, _packed(model), sound, operators, inputs, outputs)


def _of(
    name: str,
    data: bytes,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: tuple[int, ...] = (4,),
    outputs: tuple[int, ...] = (4,),
) -> Case:
    stated = {"ADD": 1} if operators is None else operators
    return Case(f"litert: {name}", "litert", {"model.tflite": data}, "main", [*inputs], [*outputs], stated, sound)
