"""LiteRT as a target: TensorFlow Lite's format and runtime, with XNNPACK on CPUs."""

from edgeformer.convert.target import ROW, FileFormat, Int4, LengthCost, Target
from edgeformer.models.family import ELEMENTWISE
from edgeformer_runtime.bundle.specs import HOST_STATE

LITERT = FileFormat("litert", examiner="edgeformer_converters.litert.examiner:EXAMINER")

TARGET = Target(
    name="litert",
    format=LITERT,
    converter="edgeformer_converters.litert.converter:LiteRTConverter",
    precisions=("fp32", "fp16", "dynamic-int8", "static-int8", "weight-int8", "int4", "mixed"),
    # Two BATCH_MATMULs and a SOFTMAX in one XNNPACK partition; splitting heads is 37 % slower.
    attention="dense",
    # LiteRT drops a program's state without a word, and a host that writes one row is as fast.
    decoder_state=HOST_STATE,
    # At every call XNNPACK copies the second matrix of a product into an order of its own, and in a decoder that is the
    # whole cache: sums take three quarters of the time.
    token_matmul=ELEMENTWISE,
    # Programs share one cache of weights. Of tiny.en at int8 each length costs up to 10 s of conversion, 1.9 MB of file
    # and 3 MB of memory; finer steps gain on short clips.
    audio_seconds=(2.5, 5.0, 7.5, 12.5, 20.0, 30.0),
    layer_formats=("fp16", "int8", "int4"),
    activations=ROW,  # XNNPACK's qd8
    int4=Int4(block=None),  # XNNPACK's blocks of 32 take twice as long as its rows
    # MiniLM, one thread with AVX-512: at fp32 a call of 12 tokens takes .20 ms a token and one of 128 .11, as each
    # reads all weights; at int8 .043 and .039, and there is no padding.
    packs=True,
    # MiniLM, 36 linear layers, int8: one length 23.16 MB, nine 23.46; CPU 16.5 s, with five more and rows 20.9 s.
    length_cost=LengthCost(bytes_per_layer=1030, seconds_per_layer=0.025),
    aliases=("tflite", "tensorflowlite", "android"),
)
