"""int8 in LiteRT: which operators take which kind, and the quantizer's two ways of getting there.

TinyViT-5M (seeded weights, which are harder than trained ones), weights rounded by `edgeformer.convert.calibration` but
in the rows that say "to nearest", one x86-64 thread of a busy machine. Cosines to fp32 and differences, relative to the
largest logit, are the worst over 17 held-out images (photographs and CIFAR-10) and 6 that were calibration inputs, 16
small images being the others. One partition everywhere.

| | ms | cosine | difference | file of fp32's |
|---|---|---|---|---|
| fp32 | 37.1 | 1 | 0 | 1 |
| dynamic-int8: products and pointwise convolutions, spatial kernels in float | 22.0 | .9988 | .053 | .277 |
| the same, to nearest | 21.7 | .9940 | .109 | .277 |
| static: products and pointwise convolutions | 20.4 | .9885 | .178 | .288 |
| the same, to nearest | 20.3 | .9860 | .167 | .288 |
| static-int8: products; pointwise convolutions dynamic | 19.7 | .9955 | .090 | .287 |
| static: products that feed attention or GELU; the other ones dynamic | 19.6 | .9977 | .074 | .284 |
| static: products that widen; the other ones dynamic | 19.4 | .9946 | .108 | .281 |

What static int8 loses is in the results: they get one range for all positions, and those of the first stages have the
widest ranges. In int8, the spatial kernels' 45,000 weights alone cost a cosine of .002.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.models.family import MIN_MAX, Program
from edgeformer_converters.checks import PlannedLayers
from edgeformer_converters.litert.graph import LiteRTGraph
from edgeformer_converters.observe import ValueHistogram

# All spatial kernels of TinyViT-5M together are 45,000 weights, 0.7 % of its bytes, and cost it a cosine of .002.
MOST_FLOAT_WEIGHTS = 1 << 16


def quantize_to_int8(programs: Sequence[Program], precision: str, source: Path, destination: Path) -> None:
    """Write the int8 model of a float `.tflite`.

    The quantizer leaves the weights behind the flatbuffer, at offsets that it holds, so whatever else is changed has to
    be changed before.

    Args:
        programs: what the signatures are; static-int8 takes their calibration inputs.
        precision: "dynamic-int8", "weight-int8" or "static-int8".
        source: the float model.
        destination: a file that does not exist yet.
    """
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    graph = LiteRTGraph(source)
    static = precision == "static-int8"
    # Folded into constants, TinyViT's position biases are 4.9 of its 26.7 MB, and no recipe reaches an ADD's constant.
    biases = graph.store_attention_biases_in_int8()
    pointwise = graph.make_products_of_pointwise_convolutions()
    manager = recipe_manager.RecipeManager()
    if static:
        # Attention's products and softmax stay float, because XNNPACK leaves those outside in int8.
        manager.add_static_config(".*", TFLOperationName.FULLY_CONNECTED, activation_num_bits=8, weight_num_bits=8)
        for name in pointwise:
            manager.add_dynamic_config(re.escape(name), TFLOperationName.FULLY_CONNECTED, num_bits=8)
    elif precision == "weight-int8":
        manager.add_weight_only_config(".*", TFLOperationName.ALL_SUPPORTED, num_bits=8)
    else:
        manager.add_dynamic_config(".*", TFLOperationName.ALL_SUPPORTED, num_bits=8)
    _add_spatial_convolutions(manager, graph, static)
    _keep_products_of_constants(manager, graph)
    recipe = manager.get_quantization_recipe()
    content = graph.to_bytes() if biases or pointwise else source.read_bytes()
    tool = quantizer.Quantizer(bytearray(content), recipe)
    ranges = _calibrate(programs, content, recipe) if static else None
    tool.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).export_model(str(destination))


def _add_spatial_convolutions(manager: Any, graph: LiteRTGraph, static: bool) -> None:
    """Kernels larger than 1 x 1, which meet the pixels first and are few weights: small ones stay float.

    Of large ones the weights are stored in int8. Depthwise ones compute in float then, because XNNPACK leaves dynamic
    ones outside (1 partition becomes 16); so do static ones, which would gain nothing measurable.
    """
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.qtyping import TFLOperationName

    for kind, name, weights in graph.spatial_convolutions():
        operation = TFLOperationName[kind]
        if weights <= MOST_FLOAT_WEIGHTS:
            manager.add_weight_only_config(
                re.escape(name), operation, num_bits=16, algorithm_key=recipe.AlgorithmName.FLOAT_CASTING
            )
        elif static or kind == "DEPTHWISE_CONV_2D":
            manager.add_weight_only_config(re.escape(name), operation, num_bits=8)


def _keep_products_of_constants(manager: Any, graph: LiteRTGraph) -> None:
    """The quantizer stores a constant first operand in int8, which kernels take in float alone: NaN, or any number."""
    from ai_edge_quantizer import recipe
    from ai_edge_quantizer.qtyping import TFLOperationName

    for name in graph.products_of_constants():
        manager.add_quantization_config(
            re.escape(name), TFLOperationName.BATCH_MATMUL, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE
        )


def _calibrate(programs: Sequence[Program], content: bytes | bytearray, recipe: Any) -> Any:
    """The ranges of all tensors over the calibration inputs, by the programs' calibration method.

    By min-max the smallest and the largest value count. The quantizer's own moving average forgets the first images'
    extremes and cuts off the largest logits.
    """
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    observer = calibrator.Calibrator(bytes(content), num_threads=1, qsv_update_func=qsv_utils.min_max_update)
    observer.calibrate(
        {
            program.name: [
                {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}
                for values in program.calibration
            ]
            for program in programs
        },
        manager,
    )
    ranges = observer.get_model_qsvs()
    method = programs[0].calibration_method
    return ranges if method == MIN_MAX else _by_method(programs, content, ranges, method)


def _by_method(programs: Sequence[Program], content: bytes | bytearray, ranges: Any, method: str) -> Any:
    """The same tensors with ranges from histograms of their values."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=bytes(content), experimental_preserve_all_tensors=True, num_threads=1)
    histograms: dict[str, ValueHistogram] = {name: ValueHistogram() for name in ranges}
    signatures = LiteRTGraph.signatures(content)
    for program in programs:
        runner, graph = interpreter.get_signature_runner(program.name), signatures[program.name]
        details = [each for each in interpreter.get_tensor_details(graph) if each["name"] in histograms]
        for values in program.calibration:
            runner(**{spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)})
            for detail in details:
                histograms[detail["name"]].add(interpreter.get_tensor(detail["index"], graph))
    found = {}
    for name, known in ranges.items():
        low, high = histograms[name].range(method)
        shape = np.shape(known["min"])
        found[name] = {**known, "min": np.full(shape, low, np.float32), "max": np.full(shape, high, np.float32)}
    return found


# A format for each layer in LiteRT: the layer's operator is found by its weights and named after the format.
#
# The AI Edge Quantizer chooses operators by the names of what they give, so a recipe is one line for each format.
#
# | format | operator | how XNNPACK computes |
# |---|---|---|
# | fp32 | as it is | in float |
# | fp16 | weights in float16 | in float; they are widened once, when the model loads |
# | int8 | weights per channel, activations quantized while it runs | in int8 |
# | int4 | the same with weights of 4 bits | in int8, two weights a byte |


_WEIGHTS_INPUT = 1
"""Of FULLY_CONNECTED and EMBEDDING_LOOKUP alike."""
_SPATIAL = "spatial"


def quantize_by_plan(programs: Sequence[Program], source: Path, destination: Path) -> None:
    """Write the model of a float `.tflite` in which every layer has the format that its program says.

    Spatial convolutions, which plans leave out, are stored in float16.

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
    """Give each planned operator's result a name that starts with the format; others keep theirs."""
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
