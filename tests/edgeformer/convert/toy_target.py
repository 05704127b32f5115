"""A target as another author would add it, in this one file: ONNX's format for browsers."""

from __future__ import annotations

from dataclasses import replace

from edgeformer_converters.onnx.converter import OnnxConverter
from edgeformer_converters.onnx.target import TARGET as ONNX_RUNTIME
from edgeformer_runtime.bundle.manifest import Requirements


class WebConverter(OnnxConverter):
    """ONNX Runtime Web asks for no system of its own."""

    requires = Requirements(runtime="0.1.0")


TARGET = replace(
    ONNX_RUNTIME,
    name="web",
    converter="tests.edgeformer.convert.toy_target:WebConverter",
    precisions=("fp32", "dynamic-int8"),
    instead={"int4": "a browser would take longer for it than for dynamic-int8; take that"},
    aliases=("browser",),
)
