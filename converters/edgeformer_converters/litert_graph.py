"""The operators of a `.tflite`, and what int8 changes in it that the AI Edge Quantizer does not offer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A smaller constant is not worth the operator that would read it.
LEAST_ELEMENTS = 1024
LARGEST_INT8 = 127


class LiteRTGraph:
    """A `.tflite` as objects that can be changed."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        self.schema: Any = schema
        self.tools: Any = flatbuffer_utils
        self.model: Any = flatbuffer_utils.read_model(str(path))
        self.names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

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

    def count_operators(self) -> dict[str, int]:
        """How often each builtin operator occurs, over all signatures."""
        counts = Counter(self.name(operator) for graph in self.model.subgraphs for operator in graph.operators)
        return dict(sorted(counts.items()))

    def spatial_convolutions(self) -> Iterator[str]:
        """The output's name of each convolution, not depthwise, whose kernel is larger than 1 x 1."""
        for graph in self.model.subgraphs:
            for operator in graph.operators:
                # Kernels are (out, height, width, in).
                if self.name(operator) == "CONV_2D" and max(graph.tensors[operator.inputs[1]].shape[1:3]) > 1:
                    yield graph.tensors[operator.outputs[0]].name.decode()

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
                    if self._constant(graph.tensors[index]).size >= LEAST_ELEMENTS:
                        yield int(index)

    def _constant(self, tensor: Any) -> NDArray[np.float32]:
        """The values of a float constant, flat; empty for what is no such constant."""
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != self.schema.TensorType.FLOAT32:
            return np.zeros(0, np.float32)
        return np.frombuffer(bytes(data), np.float32)

    def _dequantize(self, graph: Any, index: int, stored: dict[int, tuple[int, Any]]) -> Any:
        """Let a DEQUANTIZE, which is given back, make the tensor at `index`; `stored` is what signatures share."""
        tensor = graph.tensors[index]
        if tensor.buffer not in stored:
            values = self._constant(tensor)
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
        operator.opcodeIndex = self._dequantize_code()
        operator.inputs = np.array([len(graph.tensors) - 1], np.int32)
        operator.outputs = np.array([index], np.int32)
        operator.builtinOptionsType = self.schema.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = self.schema.DequantizeOptionsT()
        return operator

    def _dequantize_code(self) -> int:
        number = self.schema.BuiltinOperator.DEQUANTIZE
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == number:
                return index
        code = self.schema.OperatorCodeT()
        # The second version brought int8.
        code.builtinCode = code.deprecatedBuiltinCode = number
        code.version = 2
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1
