"""A format for each layer in ONNX Runtime: the layer's nodes are found by its weights.

| format | node | how ONNX Runtime computes |
|---|---|---|
| fp32 | as it is | in float |
| fp16 | weights in half and a Cast | in float; sessions widen them once, when they load |
| int8 | as in `onnx_int8`, dynamically | in int8; convolutions in float |
| int4 | MatMulNBits: blocks of 32 weights with a scale each | activations in int8 per row and block |
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from edgeformer_converters.onnx.quantize import quantize_nodes_dynamically, store_in_int8
from edgeformer_converters.onnx.storage import store_in_half
from edgeformer_converters.onnx.target import INT4_BLOCK
from edgeformer_converters.planned_layers import PlannedLayers

LARGEST_INT4 = 7
_OFFSET = 8
"""MatMulNBits takes nibbles without a sign and subtracts this."""
_ACTIVATIONS_IN_INT8 = 4
"""MatMulNBits' accuracy level."""
_DOMAIN = "com.microsoft"


def quantize_by_plan(model: onnx.ModelProto, layers: PlannedLayers) -> onnx.ModelProto:
    """A model in which every layer that it has is in the format of its plan.

    Args:
        model: of one program; changed.
        layers: of all the programs; those that are found here are marked.
    """
    nodes = _nodes_by_format(model, layers)
    for node in nodes["int4"]:
        _store_in_blocks(model, node)
    store_in_half(model, {_weights(node) for node in nodes["fp16"]})
    convolutions = [node for node in nodes["int8"] if node.op_type == "Conv"]
    if nodes["int8"] or nodes["int4"]:
        store_in_int8(model, convolutions)
    products = [node.name for node in nodes["int8"] if node.op_type != "Conv"]
    return quantize_nodes_dynamically(model, products) if products else model


def _nodes_by_format(model: onnx.ModelProto, layers: PlannedLayers) -> dict[str, list[NodeProto]]:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[NodeProto]] = {format: [] for format in ("fp32", "fp16", "int8", "int4")}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Gather", "Conv") or _weights(node) not in constants:
            continue
        values = numpy_helper.to_array(constants[_weights(node)])
        layer = layers.find(values, transposed=_inputs_first(node))
        if layer is not None:
            found[layer.format].append(node)
    return found


def _weights(node: NodeProto) -> str:
    return str(node.input[0 if node.op_type == "Gather" else 1])


def _inputs_first(node: NodeProto) -> bool:
    """Whether the weights are (I, O): of a product, unless it says otherwise."""
    if node.op_type == "Gemm":
        return not any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return node.op_type == "MatMul"


def _store_in_blocks(model: onnx.ModelProto, node: NodeProto) -> None:
    """Make a product with constant weights a MatMulNBits of 4 bits, and an Add where it has a bias."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    name = _weights(node)
    values = numpy_helper.to_array(constants[name])
    rows = values.T if _inputs_first(node) else values  # (O, I)
    packed, scales = pack_int4(rows)
    for suffix, content in (("int4", packed), ("scales", scales)):
        if f"{name}_{suffix}" not in constants:
            model.graph.initializer.append(numpy_helper.from_array(content, f"{name}_{suffix}"))
    has_bias = node.op_type == "Gemm" and len(node.input) > 2
    result = f"{node.output[0]}_product" if has_bias else node.output[0]
    made = [
        onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{name}_int4", f"{name}_scales"],
            [result],
            name=f"{node.name}_int4",
            domain=_DOMAIN,
            K=rows.shape[1],
            N=rows.shape[0],
            bits=4,
            block_size=INT4_BLOCK,
            accuracy_level=_ACTIVATIONS_IN_INT8,
        )
    ]
    if has_bias:
        made.append(onnx.helper.make_node("Add", [result, node.input[2]], list(node.output), name=f"{node.name}_bias"))
    nodes = [each for old in model.graph.node for each in (made if old.name == node.name else (old,))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    if not any(name in each.input for each in nodes):
        model.graph.initializer.remove(constants[name])
    if all(each.domain != _DOMAIN for each in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))


def pack_int4(rows: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights as MatMulNBits takes them: rounded to nearest, blocks of a row side by side.

    Args:
        rows: (O, I) float32.

    Returns:
        (O, blocks, INT4_BLOCK / 2) uint8, the earlier weight in the lower half of each byte; the last block is filled
        up with zeros. (O * blocks,) float32, the scales.
    """
    blocks = -(-rows.shape[1] // INT4_BLOCK)
    padded = np.pad(rows, ((0, 0), (0, blocks * INT4_BLOCK - rows.shape[1]))).reshape(len(rows), blocks, INT4_BLOCK)
    scales = np.abs(padded).max(axis=2, keepdims=True) / np.float32(LARGEST_INT4)
    scales[scales == 0] = 1
    steps = (np.round(padded / scales) + _OFFSET).astype(np.uint8)
    return steps[..., 0::2] | steps[..., 1::2] << 4, scales.astype(np.float32).reshape(-1)
