"""ONNX as a target: ONNX Runtime on CPUs."""

from edgeformer.convert.target import EXAMPLE, FileFormat, Int4, Target
from edgeformer_runtime.bundle.specs import HOST_STATE

ONNX = FileFormat("onnx", examiner="edgeformer_converters.onnx.examiner:EXAMINER")
INT4_BLOCK = 32
"""ONNX Runtime's MatMulNBits has no whole rows."""

TARGET = Target(
    name="onnx",
    format=ONNX,
    converter="edgeformer_converters.onnx.converter:OnnxConverter",
    precisions=("fp32", "fp16", "dynamic-int8", "static-int8", "weight-int8", "int4", "mixed"),
    # As fast as fused (20.1 ms and 20.0 ms for 3 layers of MiniLM at 128 tokens, one x86-64 thread), so ONNX shares its
    # graph with LiteRT and ExecuTorch; split_heads takes 35.5 ms.
    attention="dense",
    decoder_state=HOST_STATE,
    # Each session packs its own copy of the weights.
    audio_seconds=(5.0, 10.0, 20.0, 30.0),
    layer_formats=("fp16", "int8", "int4"),
    activations=EXAMPLE,  # DynamicQuantizeLinear
    int4=Int4(INT4_BLOCK),
    aliases=("ort", "onnxruntime"),
)
