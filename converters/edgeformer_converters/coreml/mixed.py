"""A format for each layer in Core ML: the layer's constant is found by its values.

fp32 layers compute in float32; the other ones in half, with weights in half, in int8 or in int4 (`coreml_weights`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeformer_converters.coreml.weights import INT4, INT8
from edgeformer_converters.planned_layers import PlannedLayer, PlannedLayers

_INPUTS_FIRST = ("matmul",)
"""Operators that may take weights as (I, O)."""


def stays_float(layers: PlannedLayers, operation: Any) -> bool:
    """Whether an operation of coremltools reads the weights of a layer that a plan leaves in float32."""
    return any(layer.format == "fp32" for _, layer in _weights(layers, operation))


def compress_by_plan(model: Any, layers: PlannedLayers) -> Any:
    """A copy of a coremltools model whose layers' weights are stored as planned; those found are marked.

    A layer of int4 whose channels blocks do not divide stays in half, as in the precision int4.
    """
    import coremltools.optimize.coreml as optimize

    chosen = {"int8": INT8.quantizer(least=0), "int4": INT4.quantizer(least=0)}
    configs: dict[str, Any] = {}
    for function in model._mil_program.functions.values():
        for operation in function.operations:
            for constant, layer in _weights(layers, operation):
                if layer.format in chosen:
                    configs[constant] = chosen[layer.format]
    if not configs:
        return model
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op_name_configs=configs))


def _weights(layers: PlannedLayers, operation: Any) -> list[tuple[str, PlannedLayer]]:
    """Names of constants that an operation reads, casts looked through, with the layers whose weights they are."""
    found = []
    for operand in operation.inputs.values():
        value = getattr(operand, "val", None)
        maker = getattr(operand, "op", None)
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype.kind != "f" or maker is None:
            continue
        if operation.op_type == "const":
            continue
        while maker.op_type == "cast":
            maker = maker.x.op
        transposed = operation.op_type in _INPUTS_FIRST and not operation.transpose_y.val
        layer = layers.find(value, transposed)
        if layer is not None:
            found.append((str(maker.name), layer))
    return found
