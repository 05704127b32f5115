"""The operators of a `.tflite`, and what int8 changes in it that the AI Edge Quantizer does not offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeformer.convert.layer_plan import LARGEST_INT8

# A smaller constant is not worth the operator that would read it.
LEAST_ELEMENTS = 1024
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


class LiteRTGraph:
    """A `.tflite` as objects that can be changed."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        self.schema: Any = schema
        self.tools: Any = flatbuffer_utils
        self.model: Any = flatbuffer_utils.read_model(str(path))
        for buffer in self.model.buffers:
            if buffer.data is not None:  # of anything but arrays, the flatbuffers library copies byte by byte
                buffer.data = np.frombuffer(buffer.data, np.uint8)
        self.names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

    @staticmethod
    def signatures(content: bytes | bytearray) -> dict[str, int]:
        """The number of the graph that each signature of a model runs."""
        from ai_edge_litert import schema_py_generated as schema

        model: Any = schema.Model.GetRootAs(content)
        found = (model.SignatureDefs(number) for number in range(model.SignatureDefsLength()))
        return {each.SignatureKey().decode(): each.SubgraphIndex() for each in found}

    def to_bytes(self) -> bytearray:
        """The model as a file holds it."""
        packed: bytearray = self.tools.convert_object_to_bytearray(self.model)
        return packed

    def name(self, operator: Any) -> str:
        """`CONV_2D` and the like."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Codes above 126 live in the second field only; older ones may live in the first.
        name: str = self.names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return name

    def sequences(self) -> list[tuple[str, ...]]:
        """The operators of each graph, in order; there is a graph for each signature."""
        return [tuple(self.name(operator) for operator in graph.operators) for graph in self.model.subgraphs]

    def alone(self, index: int) -> bytearray:
        """A model of one graph and the constants that it reads."""
        graph = self.model.subgraphs[index]
        used = {tensor.buffer for tensor in graph.tensors}
        model = copy(self.model)
        empty = self.schema.BufferT()
        model.buffers = [buffer if number in used else empty for number, buffer in enumerate(self.model.buffers)]
        model.subgraphs, model.signatureDefs = [graph], []
        packed: bytearray = self.tools.convert_object_to_bytearray(model)
        return packed

    def count_operators(self) -> dict[str, int]:
        """How often each builtin operator occurs, over all signatures."""
        counts = Counter(name for names in self.sequences() for name in names)
        return dict(sorted(counts.items()))

    def spatial_convolutions(self) -> Iterator[tuple[str, str, int]]:
        """Of each convolution whose kernel is larger than 1 x 1: what it is, its output's name, how many weights."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                name = self.name(operator)
                # Kernels are (out, height, width, in), depthwise ones (1, height, width, out).
                if name in CONVOLUTIONS and max(graph.tensors[operator.inputs[1]].shape[1:3]) > 1:
                    weights = int(np.prod(graph.tensors[operator.inputs[1]].shape))
                    yield name, graph.tensors[operator.outputs[0]].name.decode(), weights

    def products_of_constants(self) -> Iterator[str]:
        """The output's name of each BATCH_MATMUL whose first operand is a constant."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                if self.name(operator) == "BATCH_MATMUL" and self.constant(graph.tensors[operator.inputs[0]]).size:
                    yield graph.tensors[operator.outputs[0]].name.decode()

    def make_products_of_pointwise_convolutions(self) -> tuple[str, ...]:
        """Let each 1 x 1 convolution be a FULLY_CONNECTED over the channels, which computes the same.

        Activations that are quantized while the model runs get one range per image in a convolution, and one per
        position in a product.

        Returns:
            The names of their outputs.
        """
        names = []
        for graph in self.model.subgraphs:
            readers = Counter(int(index) for operator in graph.operators for index in operator.inputs)
            for operator in graph.operators:
                if self.name(operator) == "CONV_2D" and self._is_pointwise(graph, operator, readers):
                    weights = graph.tensors[operator.inputs[1]]
                    weights.shape = np.array([weights.shape[0], weights.shape[3]], np.int32)
                    weights.shapeSignature = None
                    options = self.schema.FullyConnectedOptionsT()
                    options.fusedActivationFunction = operator.builtinOptions.fusedActivationFunction
                    options.keepNumDims = True
                    operator.builtinOptionsType = self.schema.BuiltinOptions.FullyConnectedOptions
                    operator.builtinOptions = options
                    # The fifth version brought products that keep the input's axes.
                    operator.opcodeIndex = self._code(self.schema.BuiltinOperator.FULLY_CONNECTED, 5)
                    names.append(graph.tensors[operator.outputs[0]].name.decode())
        return tuple(names)

    def _is_pointwise(self, graph: Any, operator: Any, readers: Counter[int]) -> bool:
        options, kernel = operator.builtinOptions, graph.tensors[operator.inputs[1]]
        # Of a grouped convolution the kernel has fewer channels than the input.
        same_channels = kernel.shape[3] == graph.tensors[operator.inputs[0]].shape[3]
        steps = (options.strideH, options.strideW)
        constant = self.constant(kernel).size > 0 and readers[int(operator.inputs[1])] == 1
        return constant and bool(same_channels) and tuple(kernel.shape[1:3]) == (1, 1) and steps == (1, 1)

    def store_attention_biases_in_int8(self) -> int:
        """Store each constant that is added to attention scores in int8, dequantized where it is added.

        Returns:
            How many constants there were.
        """
        stored: dict[int, tuple[int, Any]] = {}
        for graph in self.model.subgraphs:
            constants = list(dict.fromkeys(self._attention_biases(graph)))
            graph.operators = [self._dequantize(graph, index, stored) for index in constants] + list(graph.operators)
        for buffer in stored:
            self.model.buffers[buffer].data = None
        return len(stored)

    def _attention_biases(self, graph: Any) -> Iterator[int]:
        """Indices of the float constants that an ADD before a SOFTMAX takes."""
        consumers: dict[int, list[Any]] = {}
        for operator in graph.operators:
            for index in operator.inputs:
                consumers.setdefault(index, []).append(operator)

        def leads_to_softmax(operator: Any) -> bool:
            followers = consumers.get(operator.outputs[0], [])
            names = [self.name(follower) for follower in followers]
            return "SOFTMAX" in names or any(
                name == "RESHAPE" and leads_to_softmax(follower)
                for name, follower in zip(names, followers, strict=True)
            )

        for operator in graph.operators:
            if self.name(operator) == "ADD" and leads_to_softmax(operator):
                for index in operator.inputs:
                    size, shape = self.constant(graph.tensors[index]).size, graph.tensors[index].shape
                    # A single row, which all queries share, is small and may have to be exact.
                    if size >= LEAST_ELEMENTS and size > shape[-1]:
                        yield int(index)

    def constant(self, tensor: Any) -> NDArray[np.float32]:
        """The values of a float constant, flat; empty for what is no such constant."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != self.schema.TensorType.FLOAT32:
            return np.zeros(0, np.float32)
        return np.frombuffer(bytes(data), np.float32)

    def _dequantize(self, graph: Any, index: int, stored: dict[int, tuple[int, Any]]) -> Any:
        """Let a DEQUANTIZE, which is given back, make the tensor at `index`; `stored` is what signatures share."""
        tensor = graph.tensors[index]
        if tensor.buffer not in stored:
            values = self.constant(tensor)
            # One scale for all heads: every LiteRT runtime and delegate knows that, and the softmax sees no difference.
            scale = float(np.abs(values).max()) / LARGEST_INT8 or 1.0
            buffer = self.schema.BufferT()
            buffer.data = np.round(values / scale).astype(np.int8).view(np.uint8)
            self.model.buffers.append(buffer)
            quantization = self.schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = np.array([scale], np.float32), np.zeros(1, np.int64)
            stored[tensor.buffer] = (len(self.model.buffers) - 1, quantization)
        small = self.schema.TensorT()
        small.shape, small.hasRank, small.name = tensor.shape, tensor.hasRank, tensor.name + b"_int8"
        small.type = self.schema.TensorType.INT8
        small.buffer, small.quantization = stored[tensor.buffer]
        tensor.buffer = 0
        graph.tensors.append(small)
        operator = self.schema.OperatorT()
        # The second version brought int8.
        operator.opcodeIndex = self._code(self.schema.BuiltinOperator.DEQUANTIZE, 2)
        operator.inputs = np.array([len(graph.tensors) - 1], np.int32)
        operator.outputs = np.array([index], np.int32)
        operator.builtinOptionsType = self.schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = self.schema.DequantizeOptionsT()
        return operator

    def _code(self, number: int, version: int) -> int:
        """The index of an operator's code; its version is at least this one afterwards."""
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                code.version = max(code.version, version)
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1


# How a `.tflite` is kept: every constant, and every list of scales, once for all signatures.


# What is smaller stays inside the flatbuffer: a place of its own and padding would cost as much.
LEAST_BYTES = 1024
# A cache line, for XNNPACK reads some constants where they lie.
ALIGNMENT_BYTES = 64


def store_compactly(source: Path, path: Path) -> None:
    """Write a `.tflite` again, smaller.

    Large constants follow the flatbuffer, as in models of more than 2 GB, and each knows its offset and size. So two
    can share a place: those of equal content, and one that another starts with, as tables of positions do that differ
    in length alone. Weights of equal integers and other scales may not: XNNPACK's weight cache knows weights by their
    address, and would take the first one's scales for both. Equal quantization parameters are one table of the
    flatbuffer: every signature would repeat those of a table of embeddings, 12 bytes a row. Tensors are numbered: their
    names, of signatures' tensors too, are kept in the signatures, and the tool's own ones, with the path of modules
    that each comes from, take 200 kB a signature.

    Args:
        source: a model of one of the tools.
        path: a file that does not exist yet.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model(str(source))
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"{number}.{index}"
    scales = _separate_scales(model)
    _share_quantization(model)
    contents = {
        index: _Content(bytes(buffer.data), scales.get(index, b""))
        for index, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data) >= LEAST_BYTES
    }
    places, stored = _arrange(contents.values())
    for index in contents:
        buffer = model.buffers[index]
        # The offsets are known when the flatbuffer's length is; a field that is 0 would not be there to be set.
        buffer.data, buffer.offset, buffer.size = None, 1, 1
    flatbuffer = flatbuffer_utils.convert_object_to_bytearray(model)
    flatbuffer += bytes(-len(flatbuffer) % ALIGNMENT_BYTES)
    packed = schema.Model.GetRootAs(flatbuffer)
    for index, content in contents.items():
        offset = len(flatbuffer) + places[content]
        flatbuffer_utils.update_packed_buffer(packed.Buffers(index), offset=offset, size=len(content.data))
    with path.open("xb") as file:
        file.write(flatbuffer)
        for data in stored:
            file.write(data + bytes(-len(data) % ALIGNMENT_BYTES))


class _Content(NamedTuple):
    """A constant's bytes, and the scales of the tensor that they are, none for floats."""

    data: bytes
    scales: bytes


def _separate_scales(model: Any) -> dict[int, bytes]:
    """The scales of each buffer's tensors, by index; a buffer that has tensors of several gets copies."""
    scales: dict[int, bytes] = {}
    copies: dict[tuple[int, bytes], int] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is None or found.scale is None or not len(found.scale) or model.buffers[tensor.buffer].data is None:
            continue
        own = np.asarray(found.scale, np.float32).tobytes()
        if scales.setdefault(tensor.buffer, own) == own:
            continue
        original = tensor.buffer
        if (original, own) not in copies:
            copies[original, own] = len(model.buffers)
            model.buffers.append(copy(model.buffers[original]))
        tensor.buffer = copies[original, own]
        scales[tensor.buffer] = own
    return scales


def _arrange(contents: Iterable[_Content]) -> tuple[dict[_Content, int], list[bytes]]:
    """Where each content lies, and what has to be stored, each padded to the alignment, in this order."""
    places: dict[_Content, int] = {}
    stored: dict[bytes, list[_Content]] = {}
    order: list[bytes] = []
    end = 0
    for content in sorted(dict.fromkeys(contents), key=lambda each: len(each.data), reverse=True):
        alike = stored.setdefault(content.data[:LEAST_BYTES] + content.scales, [])
        longer = next((each for each in alike if each.data.startswith(content.data)), None)
        if longer is None:
            places[content] = end
            end += len(content.data) + -len(content.data) % ALIGNMENT_BYTES
            alike.append(content)
            order.append(content.data)
        else:
            places[content] = places[longer]
    return places, order


class _SharedVectors:
    """A flatbuffer's builder that keeps equal vectors once: most zero points of int8 are zeros, 8 bytes a channel."""

    def __init__(self, builder: Any, offsets: dict[tuple[str, bytes], int]) -> None:
        self._builder = builder
        self._offsets = offsets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def CreateNumpyVector(self, values: NDArray[np.generic]) -> int:
        """The vector's offset; the name is the flatbuffers library's."""
        key = (str(values.dtype), values.tobytes())
        if key not in self._offsets:
            self._offsets[key] = self._builder.CreateNumpyVector(values)
        return self._offsets[key]


class _Once:
    """A table of the flatbuffer that is packed once, however many refer to it."""

    def __init__(self, table: Any, vectors: dict[tuple[str, bytes], int]) -> None:
        self.table = table
        self.vectors = vectors
        self.offset: int | None = None

    def Pack(self, builder: Any) -> int:
        """The table's offset; the name is the flatbuffers library's."""
        if self.offset is None:
            self.offset = self.table.Pack(_SharedVectors(builder, self.vectors))
        assert self.offset is not None
        return self.offset


def _share_quantization(model: Any) -> None:
    tables: dict[tuple[Any, ...], _Once] = {}
    vectors: dict[tuple[str, bytes], int] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is None:
            continue
        for field, dtype in (("min", np.float32), ("max", np.float32), ("scale", np.float32), ("zeroPoint", np.int64)):
            values = getattr(found, field)
            setattr(found, field, None if values is None else np.asarray(values, dtype))
        if found.details is None:
            key = tuple(
                value.tobytes() if isinstance(value, np.ndarray) else value for _, value in sorted(vars(found).items())
            )
            tensor.quantization = tables.setdefault(key, _Once(found, vectors))
