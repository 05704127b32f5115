"""ExecuTorch as a target: PyTorch's own runtime for devices, with XNNPACK on CPUs."""

from types import MappingProxyType

from edgeformer.convert.target import EXAMPLE, FileFormat, Int4, LengthCost, Target
from edgeformer_runtime.bundle.specs import PROGRAM_STATE

EXECUTORCH = FileFormat("executorch", examiner="edgeformer_converters.executorch.examiner:EXAMINER")

TARGET = Target(
    name="executorch",
    format=EXECUTORCH,
    converter="edgeformer_converters.executorch.converter:ExecuTorchConverter",
    precisions=("fp32", "fp16", "dynamic-int8", "static-int8", "int4", "mixed"),
    instead=MappingProxyType({"weight-int8": "XNNPACK has no product of floats with int8 weights; take dynamic-int8"}),
    # 3 XNNPACK delegates and 64 ms for MobileBERT; the sdpa operator is 2 to 5 times slower (safe softmax on the CPU).
    attention="dense",
    decoder_state=PROGRAM_STATE,
    # Each length is lowered on its own, which takes most of a conversion's time.
    seq_lens=(16, 32, 128),
    # Two layers of MiniLM, 12 linear ones, fp32: one length 62.393 MB and 23.9 s of CPU, three 62.442 MB and 30.2 s.
    length_cost=LengthCost(bytes_per_layer=2020, seconds_per_layer=0.26),
    audio_seconds=(5.0, 10.0, 20.0, 30.0),
    layer_formats=("int8", "int4"),  # its weights in float16 make the whole model compute in float16
    activations=EXAMPLE,
    int4=Int4(block=None),
    aliases=("pte",),
)
