"""`.tflite` files of one operator, made by hand with the schema that LiteRT ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec


@dataclass(frozen=True)
class Part:
    """A tensor: its shape and type, and its values if it is a constant."""

    shape: tuple[int, ...]
    dtype: str = "FLOAT32"
    values: Any = None


PROGRAM = ProgramSpec(
    "p", "model.tflite", "p", (TensorSpec("x", "float32", (4, 4)),), (TensorSpec("y", "float32", (4, 4)),)
)


def one_operator(
    operator: str,
    inputs: Sequence[Part],
    outputs: Sequence[Part],
    options: Any = None,
    change: Callable[[Any, Any], None] | None = None,
) -> bytes:
    """A model that adds its input x to itself, which gives y, and runs one more operator that nobody reads.

    Args:
        operator: its name in BuiltinOperator.
        inputs: its operands; one without values is x.
        outputs: its results.
        options: its builtin options, as a name and fields, or None.
        change: called with the model's objects and the schema.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []

    def tensor(part: Part) -> int:
        made = schema.TensorT()
        made.shape, made.type = list(part.shape), getattr(schema.TensorType, part.dtype)
        made.name = f"t{len(graph.tensors)}"
        if part.values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(part.values, part.dtype.lower()).tobytes(), np.uint8)
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def run(name: str, given: list[int], made: list[int], chosen: Any) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        model.operatorCodes.append(code)
        operation = schema.OperatorT()
        operation.opcodeIndex = len(model.operatorCodes) - 1
        operation.inputs, operation.outputs = given, made
        if chosen is not None:
            kind, fields = chosen
            operation.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operation.builtinOptions = getattr(schema, f"{kind}T")()
            for field, value in fields.items():
                setattr(operation.builtinOptions, field, value)
        graph.operators.append(operation)

    model.operatorCodes = []
    x, y = tensor(Part((4, 4))), tensor(Part((4, 4)))
    graph.inputs, graph.outputs = [x], [y]
    run("ADD", [x, x], [y], ("AddOptions", {}))
    run(
        operator, [x if part.values is None else tensor(part) for part in inputs], [tensor(p) for p in outputs], options
    )
    model.subgraphs = [graph]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "p", 0
    for field, name, index in (("inputs", "x", x), ("outputs", "y", y)):
        mapped = schema.TensorMapT()
        mapped.name, mapped.tensorIndex = name, index
        setattr(signature, field, [mapped])
    model.signatureDefs = [signature]
    if change is not None:
        change(model, schema)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
