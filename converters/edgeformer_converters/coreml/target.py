"""Core ML as a target: Apple's systems."""

from types import MappingProxyType

from edgeformer.convert.target import FileFormat, Int4, LengthCost, Target
from edgeformer_runtime.bundle.manifest import Recipe
from edgeformer_runtime.bundle.specs import PROGRAM_STATE

COREML = FileFormat(
    "coreml",
    examiner="edgeformer_converters.coreml.examiner:EXAMINER",
    # Core ML itself runs on macOS only; elsewhere our interpreter of its language executes the converted program.
    reference_engine="edgeformer_converters.mil.interpreter:MilReferenceEngine",
    # It has states in float16 only. Of tiny.en at fp32, whose encoder differs by 2e-7, the steps' logits differ by
    # 1.6e-4.
    state_rounding=2**-11,
)

MACOS_OF_IOS = {16: 13, 17: 14, 18: 15}
"""Releases with the same operators. iOS 18 brought fused attention, states, functions that share weights, and int4."""

TARGET = Target(
    name="coreml",
    format=COREML,
    converter="edgeformer_converters.coreml.converter:CoreMLConverter",
    precisions=("fp32", "fp16", "dynamic-int8", "palette6", "palette4", "int4", "mixed"),
    instead=MappingProxyType(
        {
            "weight-int8": "its dynamic-int8 is int8 weights with float16 arithmetic; take that",
            "static-int8": "activations are quantized on macOS only; take dynamic-int8",
        }
    ),
    recipes=MappingProxyType(
        {
            "int4": Recipe("wint4_afp16", "int4", "float16", "int4"),
            "mixed": Recipe("wmixed_afp16", "mixed", "float16", "mixed"),
        }
    ),
    # Stays one scaled_dot_product_attention operator from iOS 18 on, for Core ML to place as it likes.
    attention="fused",
    decoder_state=PROGRAM_STATE,
    # Each length is lowered on its own, which takes most of a conversion's time.
    seq_lens=(16, 32, 64, 128),
    # Two layers of MiniLM, 12 linear ones, fp32: one length 61.673 MB and 28.2 s of CPU, three 61.765 MB and 30.3 s.
    length_cost=LengthCost(bytes_per_layer=3840, seconds_per_layer=0.09),
    audio_seconds=(5.0, 10.0, 20.0, 30.0),
    layer_formats=("int8", "int4"),  # what is not quantized has float16 anyway
    activations=None,
    int4=Int4(block=32, has_offsets=True),
    aliases=("mlpackage", "apple", "ios"),
    ios_releases=tuple(MACOS_OF_IOS),
    one_program_before_ios=18,
)
