"""int8 in ONNX Runtime: which operators take which kind, and the constants that its quantizers leave in float.

TinyViT-5M (seeded weights, which are harder than trained ones), one x86-64 thread of a busy machine. Columns as in
`litert_int8`; the last four rows have weights rounded to nearest and were measured over six photographs on a quiet one:

| | ms | cosine | difference | file of fp32's |
|---|---|---|---|---|
| fp32 | 48.5 | 1 | 0 | 1 |
| dynamic-int8: products; the pointwise convolutions' weights | 38.4 | .9984 | .057 | .267 |
| static-int8: as above | 39.6 | .9966 | .079 | .266 |
| fp32 | 41 | 1 | 0 | 1 |
| dynamic: products and convolutions | 118 | .9868 | .156 | – |
| static: products and all convolutions | 32.1 | .9809 | .222 | – |
| static: products and pointwise convolutions | 30.6 | .9783 | .182 | .263 |
| static: as above, activations signed | 45.1 | .9811 | .205 | – |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from edgeformer.models.program import MIN_MAX, Program
from edgeformer_converters.onnx.ranges import activation_ranges

# A smaller constant is not worth the operator that would read it.
LEAST_ELEMENTS = 1024
LARGEST_INT8 = 127
# All spatial kernels of TinyViT-5M together are 45,000 weights, 0.7 % of its bytes.
MOST_FLOAT_WEIGHTS = 1 << 16
# Products after GELU get their activations quantized per block of 128; see `quantize_dynamically`.
BLOCK_SIZE = 128
DYNAMIC = ["MatMul", "Gemm", "Gather"]


def quantize_dynamically(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights to int8; activations are quantized while the model runs.

    ONNX Runtime quantizes activations per tensor, which leaves MiniLM's embeddings a cosine of only 0.990 to fp32's.
    Half of that comes from GELU's outputs with their one long tail. Quantizing those per row and block (MatMulNBits)
    gives 0.996 for 25 % more time, still 1.8 times fp32's speed. Doing so everywhere is another 1.2 times slower there,
    and on MobileBERT, whose ReLU outputs do not need it (0.9997), as slow as fp32. Signed weights are 1.7 times faster
    than unsigned ones, whose cosine is no better.

    Convolutions compute in float with int8 weights: quantized dynamically they take three times as long as in float.
    """
    products = [node.name for node in model.graph.node if node.op_type in DYNAMIC]
    store_in_int8(model, _large_convolutions(model))
    return quantize_nodes_dynamically(model, products)


def quantize_nodes_dynamically(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same for the products and tables of these nodes only."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _quantize_after_gelu(model, frozenset(names))
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantized.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=DYNAMIC,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # The quantizer makes a MatMul of every Gemm, under this name, before it looks for the names.
            nodes_to_quantize=[*names, *(f"{name}_MatMul" for name in names)],
        )
        return onnx.load(path)


def store_weights_in_int8(model: onnx.ModelProto) -> None:
    """Store all large weights in int8 and compute in float: sessions widen them once, when they load."""
    axes: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            axes[node.input[1]] = 1
        elif node.op_type == "Gemm":
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axes[node.input[1]] = 0 if transposed else 1
        elif node.op_type == "Gather":
            axes[node.input[0]] = 0
    store_in_int8(model, _large_convolutions(model), axes)


def quantize_statically(model: onnx.ModelProto, program: Program) -> onnx.ModelProto:
    """Weights and activations to int8, the ranges of activations from the program's calibration inputs.

    Products of two activations stay in float, as do convolutions, whose weights are in int8 but for small spatial ones.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The calibration inputs, once."""

        def __init__(self) -> None:
            self.inputs = iter(program.calibration)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            """The next inputs by name, or None."""
            values = next(self.inputs, None)
            if values is None:
                return None
            return {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    float_products = [node.name for node in products if node.op_type == "MatMul" and node.input[1] not in constants]
    ranges = {}
    if program.calibration_method != MIN_MAX:
        ranges = activation_ranges(model, [node for node in products if node.name not in float_products], program)
    store_in_int8(model, _large_convolutions(model))
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantized.onnx"
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Gemm", "MatMul"],
            nodes_to_exclude=float_products,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "TensorQuantOverrides": {
                    name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()
                }
            },
        )
        return onnx.load(path)


def _large_convolutions(model: onnx.ModelProto) -> list[NodeProto]:
    """All but those with spatial kernels of few weights, which are little to store and much to lose."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def is_large(node: NodeProto) -> bool:
        sizes = constants[node.input[1]].dims
        return bool(np.prod(sizes[2:]) == 1 or np.prod(sizes) > MOST_FLOAT_WEIGHTS)

    return [node for node in model.graph.node if node.op_type == "Conv" and is_large(node)]


def store_in_int8(
    model: onnx.ModelProto, convolutions: list[NodeProto], matrices: Mapping[str, int] | None = None
) -> None:
    """Store in int8 what the quantizers leave: these convolutions' weights and what is added to attention scores.

    Weights get a scale per output channel, attention's biases one; a Cast and a Mul give the float values back.

    Args:
        model: changed.
        convolutions: whose weights to store so.
        matrices: other constants, with the axis of their output channels.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    axes: dict[str, int | None] = {**(matrices or {}), **{node.input[1]: 0 for node in convolutions}}
    axes |= dict.fromkeys(_attention_biases(model))
    nodes = [
        node
        for name, axis in axes.items()
        if name in constants
        and constants[name].data_type == TensorProto.FLOAT
        and np.prod(constants[name].dims) >= LEAST_ELEMENTS
        for node in _dequantized(model, constants[name], axis)
    ]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _attention_biases(model: onnx.ModelProto) -> Iterator[str]:
    """Names of what an Add before a Softmax takes, reshaped or not; what is no constant is left alone later."""
    reshaped = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    consumers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def leads_to_softmax(node: NodeProto) -> bool:
        return any(
            follower.op_type == "Softmax" or (follower.op_type == "Reshape" and leads_to_softmax(follower))
            for follower in consumers.get(node.output[0], [])
        )

    for node in model.graph.node:
        if node.op_type == "Add" and leads_to_softmax(node):
            yield from (reshaped.get(name, name) for name in node.input)


def _dequantized(model: onnx.ModelProto, tensor: TensorProto, axis: int | None) -> Iterator[NodeProto]:
    """Turn a float initializer into an int8 one and the nodes, given back, that make the float values of it.

    Sessions fold Cast and Mul when they load, and convolutions need weights that are constant by then: with a
    DequantizeLinear, which is not folded, TinyViT-5M takes 43 ms for 33.
    """
    values, name = numpy_helper.to_array(tensor), tensor.name
    others = tuple(range(values.ndim)) if axis is None else tuple(n for n in range(values.ndim) if n != axis)
    scale = (np.abs(values).max(axis=others, keepdims=True) / np.float32(LARGEST_INT8)).astype(np.float32)
    scale[scale == 0] = 1
    quantized = np.round(values / scale).astype(np.int8)
    tensor.CopyFrom(numpy_helper.from_array(quantized, f"{name}_int8"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    cast = f"{name}_cast"
    yield onnx.helper.make_node("Cast", [tensor.name], [cast], name=cast, to=TensorProto.FLOAT)
    yield onnx.helper.make_node("Mul", [cast, f"{name}_scale"], [name], name=f"{name}_unscale")


def _quantize_after_gelu(model: onnx.ModelProto, names: frozenset[str]) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    after_gelu = {output for node in model.graph.node if node.op_type == "Gelu" for output in node.output}
    others = [
        node.name
        for node in model.graph.node
        if node.op_type != "MatMul" or node.input[0] not in after_gelu or node.name not in names
    ]
    # Accuracy level 4: activations in int8, per row and block.
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=8,
        block_size=BLOCK_SIZE,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=others,
        algo_config=config,
    )
    quantizer.process()
    model.CopyFrom(quantizer.model.model)
