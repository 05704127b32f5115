"""int8 in LiteRT: which operators take which kind, and the quantizer's two ways of getting there.

TinyViT-5M (seeded weights, which are harder than trained ones), one x86-64 thread with a noise of 2 ms. Cosine to fp32
is the lowest over six photographs, which are the calibration inputs too; the differences are the largest ones relative
to the largest logit, over the photographs and over `convert`'s samples. One partition everywhere. Rows are of separate
runs; trained weights and images that calibration did not see may order them differently.

| | ms | cosine | differences | file of fp32's |
|---|---|---|---|---|
| fp32 | 32 | 1 | 0, 0 | 1 |
| dynamic: products | 23.0 | .9974 | .078, .047 | – |
| dynamic-int8: products and convolutions; depthwise weights | 18-20 | .9927 | .140, .079 | .273 |
| static: products; the convolutions' weights | 22.2 | .9931 | .131, .076 | .284 |
| static: products and convolutions; depthwise weights | 17.3 | .9857 | .194, .142 | .285 |
| static-int8: as above, but of spatial kernels only the weights | 17.7 | .9877 | .173, .113 | .285 |
| static: products, convolutions, depthwise | 17.6 | .9803 | .183, .137 | .286 |
| the same without depthwise, ranges by the quantizer's moving average | 17.6 | .9837 | .335, .172 | .285 |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeformer.programs import Program
from edgeformer_converters.litert_graph import LiteRTGraph

# All spatial kernels of TinyViT-5M together are 45,000 weights, 0.7 % of its bytes, and cost it a cosine of .002.
MOST_FLOAT_WEIGHTS = 1 << 16


def quantize_to_int8(programs: Sequence[Program], precision: str, source: Path, destination: Path) -> None:
    """Write the int8 model of a float `.tflite`.

    The quantizer leaves the weights behind the flatbuffer, at offsets that it holds, so whatever else is changed has to
    be changed before.

    Args:
        programs: what the signatures are; static-int8 takes their calibration inputs.
        precision: "dynamic-int8" or "static-int8".
        source: the float model.
        destination: a file that does not exist yet.
    """
    from ai_edge_quantizer import quantizer, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    graph = LiteRTGraph(source)
    static = precision == "static-int8"
    # Folded into constants, TinyViT's position biases are 4.9 of its 26.7 MB, and no recipe reaches an ADD's constant.
    changed = graph.store_attention_biases_in_int8()
    if not static:
        changed += graph.make_products_of_pointwise_convolutions()
    manager = recipe_manager.RecipeManager()
    if static:
        # Attention's products and softmax stay float, because XNNPACK leaves those outside in int8.
        for operation in (TFLOperationName.FULLY_CONNECTED, TFLOperationName.CONV_2D):
            manager.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
    else:
        manager.add_dynamic_config(".*", TFLOperationName.ALL_SUPPORTED, num_bits=8)
    _add_spatial_convolutions(manager, graph, static)
    recipe = manager.get_quantization_recipe()
    content = graph.to_bytes() if changed else source.read_bytes()
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
            manager.add_quantization_config(re.escape(name), operation, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE)
        elif static or kind == "DEPTHWISE_CONV_2D":
            manager.add_weight_only_config(re.escape(name), operation, num_bits=8)


def _calibrate(programs: Sequence[Program], content: bytes | bytearray, recipe: Any) -> Any:
    """The ranges of all tensors over the calibration inputs.

    The smallest and the largest value count. The quantizer's own moving average forgets the first images' extremes and
    cuts off the largest logits.
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
    return observer.get_model_qsvs()
