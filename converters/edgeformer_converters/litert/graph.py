"""The operators of a `.tflite`, and what int8 changes in it that the AI Edge Quantizer does not offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A smaller constant is not worth the operator that would read it.
LEAST_ELEMENTS = 1024
LARGEST_INT8 = 127
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
