"""A format for each layer in LiteRT: the layer's operator is found by its weights and named after the format.

The AI Edge Quantizer chooses operators by the names of what they give, so a recipe is one line for each format.

| format | operator | how XNNPACK computes |
|---|---|---|
| fp32 | as it is | in float |
| fp16 | weights in half | in float; they are widened once, when the model loads |
| int8 | weights per channel, activations quantized while it runs | in int8 |
| int4 | the same with weights of 4 bits | in int8, two weights a byte |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.models.program import Program
from edgeformer_converters.litert.graph import LiteRTGraph
from edgeformer_converters.litert.quantize import MOST_FLOAT_WEIGHTS
from edgeformer_converters.planned_layers import PlannedLayers

_WEIGHTS_INPUT = 1
"""Of FULLY_CONNECTED and EMBEDDING_LOOKUP alike."""
_SPATIAL = "spatial"


def quantize_by_plan(programs: Sequence[Program], source: Path, destination: Path) -> None:
    """Write the model of a float `.tflite` in which every layer has the format that its program says.

    Spatial convolutions, which plans leave out, are stored in half.

    Args:
        programs: what the signatures are, with `layer_formats`.
        source: the float model.
        destination: a file that does not exist yet.

    Raises:
        InputError: a layer has no operator of its own in the file.
    """
    from ai_edge_quantizer import quantizer, recipe, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    layers = PlannedLayers(programs)
    formats = {each for program in programs for each in program.layer_formats.values()}
    graph = LiteRTGraph(source)
    if formats & {"int8", "int4"}:
        graph.store_attention_biases_in_int8()
    graph.make_products_of_pointwise_convolutions()
    _name_by_format(graph, layers)
    layers.require_all("litert")
    manager = recipe_manager.RecipeManager()
    for kind in ("fp16", _SPATIAL):
        manager.add_weight_only_config(
            _prefix(kind),
            TFLOperationName.ALL_SUPPORTED,
            num_bits=16,
            algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
        )
    for kind, bits in (("int8", 8), ("int4", 4)):
        manager.add_dynamic_config(_prefix(kind), TFLOperationName.ALL_SUPPORTED, num_bits=bits)
    tool = quantizer.Quantizer(graph.to_bytes(), manager.get_quantization_recipe())
    tool.quantize(None, enable_progress_bar=False, enable_progress_report=False).export_model(str(destination))


def _name_by_format(graph: LiteRTGraph, layers: PlannedLayers) -> None:
    """Give each planned operator's result a name that begins with the format; others keep theirs."""
    spatial = {name for _, name, weights in graph.spatial_convolutions() if weights <= MOST_FLOAT_WEIGHTS}
    for subgraph in graph.model.subgraphs:
        for operator in subgraph.operators:
            result = subgraph.tensors[operator.outputs[0]]
            if result.name.decode() in spatial:
                result.name = _named(_SPATIAL, result)
            elif graph.name(operator) in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP"):
                weights = subgraph.tensors[operator.inputs[_WEIGHTS_INPUT]]
                layer = layers.find(graph.constant(weights).reshape(np.asarray(weights.shape)))
                if layer is not None:
                    result.name = _named(layer.format, result)


def _prefix(kind: str) -> str:
    """Of the names of what operators of a format give, as a pattern too."""
    return f"planned:{kind}:"


def _named(kind: str, tensor: Any) -> bytes:
    return _prefix(kind).encode() + bytes(tensor.name)
