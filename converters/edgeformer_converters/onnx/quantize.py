"""int8 in ONNX Runtime: which operators take which kind, and the constants that its quantizers leave in float.

TinyViT-5M (seeded weights, which are harder than trained ones), one x86-64 thread of a busy machine. Columns as in
`litert/quantize.py`; the last four rows have weights rounded to nearest and were measured over six photographs on
a quiet one:

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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper

from edgeformer.convert.layer_plan import LARGEST_INT4, LARGEST_INT8
from edgeformer.models.family import MIN_MAX, Program
from edgeformer_converters.checks import PlannedLayers
from edgeformer_converters.observe import ValueHistogram
from edgeformer_converters.onnx.converter import store_in_half
from edgeformer_converters.onnx.target import INT4_BLOCK

# A smaller constant is not worth the operator that would read it.
LEAST_ELEMENTS = 1024  # a smaller constant is not worth the operator that would read it
# All spatial kernels of TinyViT-5M together are 45,000 weights, 0.7 % of its bytes.
MOST_FLOAT_WEIGHTS = 1 << 16
# Products after GELU get their activations quantized per block of 128; see `quantize_dynamically`.
BLOCK_SIZE = 128
GATED_BLOCK_SIZE = 64  # SmolLM2-135M's perplexity is .9 % above fp32's and not 1.9 %, in the same time
DYNAMIC = ["MatMul", "Gemm", "Gather"]


def quantize_dynamically(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights to int8; activations are quantized while the model runs.

    ONNX Runtime quantizes activations per tensor, which leaves MiniLM's embeddings a cosine of only 0.990 to fp32's.
    Half of that comes from GELU's outputs with their one long tail. Quantizing those per row and block (MatMulNBits)
    gives 0.996 for 25 % more time, still 1.8 times fp32's speed. Doing so everywhere is another 1.2 times slower there,
    and on MobileBERT, whose ReLU outputs do not need it (0.9997), as slow as fp32. Signed weights are 1.7 times faster
    than unsigned ones, whose cosine is no better.

    All products of a decoder with gates (SwiGLU), but a tied output layer, are quantized so, too: a text's first token
    has values that are hundreds of times those of the others, which would lose all their bits beside it in one tensor.
    SmolLM2-135M's logits behind four tokens are off by half of the largest then, by a ninth so, in 1.2 times the time.

    Convolutions compute in float with int8 weights: quantized dynamically they take three times as long as in float.
    """
    products = [node.name for node in model.graph.node if node.op_type in DYNAMIC]
    store_in_int8(model, _large_convolutions(model))
    return quantize_nodes_dynamically(model, products)


def quantize_nodes_dynamically(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The same for the products and tables of these nodes only."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _quantize_after_gelu(model, frozenset(names))
    gated = _of_gated(model, frozenset(names))
    tied = _tied_tables(model, frozenset(names)) if gated else {}
    for node in gated:
        if node.input[1] not in tied:
            _store_in_blocks(model, node, 8, GATED_BLOCK_SIZE)
    names = [name for name in names if name not in tied.values()]
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
        quantized = onnx.load(path)
    for table, lookup in tied.items():
        _read_columns(quantized, table, lookup)
    return quantized


def _tied_tables(model: onnx.ModelProto, names: frozenset[str]) -> dict[str, str]:
    """Tables of embeddings that are a decoder's output layer, too, and the node that looks tokens (N,) up in each."""
    shared = {node.input[1] for node in model.graph.node if node.op_type == "Gemm" and node.name in names}
    rows = {each.name for each in model.graph.input if len(each.type.tensor_type.shape.dim) == 1}
    lookups = (node for node in model.graph.node if node.op_type == "Gather" and node.name in names)
    return {node.input[0]: node.name for node in lookups if node.input[0] in shared and node.input[1] in rows}


def _read_columns(model: onnx.ModelProto, table: str, lookup: str) -> None:
    """Look a tied table up in the quantized weights of the output layer, which hold a token in each column.

    So it is stored once, and each token has a scale: of SmolLM2-135M 28 MB less, and a perplexity 1 % lower.
    """
    graph = model.graph
    weights, scales = (f"{table}_Transposed_{part}" for part in ("quantized", "scale"))  # the quantizer's names
    node = next(each for each in graph.node if each.name == lookup)
    columns, rows, values, found, scale = (f"{lookup}_{part}" for part in ("columns", "rows", "values", "all", "scale"))
    make = onnx.helper.make_node
    made = [
        make("Gather", [weights, node.input[1]], [columns], name=columns, axis=1),
        make("Transpose", [columns], [rows], name=rows, perm=[1, 0]),
        make("Cast", [rows], [values], name=values, to=TensorProto.FLOAT),
        make("Gather", [scales, node.input[1]], [found], name=found),
        make("Unsqueeze", [found, f"{lookup}_axes"], [scale], name=scale),
        make("Mul", [values, scale], list(node.output), name=lookup),
    ]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), f"{lookup}_axes"))
    nodes = [each for old in graph.node for each in (made if old.name == lookup else (old,))]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.remove(next(each for each in graph.initializer if each.name == table))


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


def _of_gated(model: onnx.ModelProto, names: frozenset[str]) -> list[NodeProto]:
    """The products with weights of a model in which one is of a SwiGLU's output, x sigmoid(x) y; of others none."""
    computed = {output: node for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul") and node.name in names]
    factors = {name: list(node.input) for name, node in computed.items() if node.op_type == "Mul"}
    inner = {each for node in products for name in factors.get(node.input[0], ()) for each in factors.get(name, ())}
    gated = any(computed[each].op_type == "Sigmoid" for each in inner & computed.keys())
    return [node for node in products if node.input[1] not in computed] if gated else []


# Ranges of an ONNX model's activations, from histograms of what calibration inputs make of them.
#
# ONNX Runtime's own entropy calibrator, at its fixed number of bins, tries the full range only.


def activation_ranges(
    model: onnx.ModelProto, nodes: Iterable[NodeProto], program: Program
) -> dict[str, tuple[float, float]]:
    """The range of each activation that some nodes read or write, by the program's method and inputs.

    Args:
        model: at fp32; it stays as it is.
        nodes: of the model, products.
        program: what the model computes.

    Returns:
        (low, high) by the tensor's name.
    """
    from onnxruntime import InferenceSession

    constants = {tensor.name for tensor in model.graph.initializer}
    names = sorted({name for node in nodes for name in (node.input[0], node.output[0])} - constants)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    computed = [each.name for each in session.get_outputs()]
    histograms = {name: ValueHistogram() for name in names}
    for values in program.calibration:
        inputs = {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}
        found = {**inputs, **dict(zip(computed, session.run(None, inputs), strict=True))}
        for name, histogram in histograms.items():
            histogram.add(found[name])
    return {name: histogram.range(program.calibration_method) for name, histogram in histograms.items()}


# A format for each layer in ONNX Runtime: the layer's nodes are found by its weights.
#
# | format | node | how ONNX Runtime computes |
# |---|---|---|
# | fp32 | as it is | in float |
# | fp16 | weights in float16 and a Cast | in float; sessions widen them once, when they load |
# | int8 | as in dynamic-int8 | in int8; convolutions in float |
# | int4 | MatMulNBits: blocks of 32 weights with a scale each | activations in int8 per row and block |


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
        _store_in_blocks(model, node, 4, INT4_BLOCK)
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


def _store_in_blocks(model: onnx.ModelProto, node: NodeProto, bits: int, block: int) -> None:
    """Make a product with constant weights a MatMulNBits of 4 or 8 bits, and an Add where it has a bias."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    name = _weights(node)
    values = numpy_helper.to_array(constants[name])
    rows = values.T if _inputs_first(node) else values  # (O, I)
    packed, scales = pack_blocks(rows, bits, block)
    for suffix, content in ((f"int{bits}", packed), ("scales", scales)):
        if f"{name}_{suffix}" not in constants:
            model.graph.initializer.append(numpy_helper.from_array(content, f"{name}_{suffix}"))
    has_bias = node.op_type == "Gemm" and len(node.input) > 2
    result = f"{node.output[0]}_product" if has_bias else node.output[0]
    made = [
        onnx.helper.make_node(
            "MatMulNBits",
            [node.input[0], f"{name}_int{bits}", f"{name}_scales"],
            [result],
            name=f"{node.name}_int{bits}",
            domain=_DOMAIN,
            K=rows.shape[1],
            N=rows.shape[0],
            bits=bits,
            block_size=block,
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


def pack_blocks(rows: NDArray[np.float32], bits: int, block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Weights as MatMulNBits takes them: rounded to nearest, blocks of a row side by side.

    Args:
        rows: (O, I) float32.
        bits: 4 or 8.
        block: weights that share a scale.

    Returns:
        (O, blocks, block * bits / 8) uint8 without a sign, of 4 bits the earlier weight in the lower half of each byte;
        the last block is filled up with zeros. (O * blocks,) float32, the scales.
    """
    blocks = -(-rows.shape[1] // block)
    padded = np.pad(rows, ((0, 0), (0, blocks * block - rows.shape[1]))).reshape(len(rows), blocks, block)
    scales = np.abs(padded).max(axis=2, keepdims=True) / np.float32(LARGEST_INT4 if bits == 4 else LARGEST_INT8)
    scales[scales == 0] = 1
    steps = (np.round(padded / scales) + (1 << bits - 1)).astype(np.uint8)
    packed = steps[..., 0::2] | steps[..., 1::2] << 4 if bits == 4 else steps
    return packed, scales.astype(np.float32).reshape(-1)
