"""Ranges of an ONNX model's activations, from histograms of what calibration inputs make of them.

ONNX Runtime's own entropy calibrator, at its fixed number of bins, tries the full range only.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import NodeProto

from edgeformer.models.program import Program
from edgeformer_converters.ranges import ValueHistogram


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
