"""The oldest LiteRT, and TensorFlow Lite before it, that has each version of each builtin operator.

Facts from google-ai-edge/LiteRT: `runtime_version.cc` (operator versions of TensorFlow Lite) and the versions that
`register.cc` lists at each release from v2.0.2 to v2.2.0. LiteRT 1.0 is TensorFlow Lite 2.17.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer.doctor.examiner import Version, older, parse_version, show

LAST_TFLITE: Version = (2, 17)
FIRST_LITERT: Version = (1, 0)
TFLITE_PREFIX = "tflite-"


@dataclass(frozen=True)
class Oldest:
    """The oldest releases that have an operator's version.

    Attributes:
        tflite: of TensorFlow Lite; None: the facts name none.
        litert: of LiteRT, where releases between 1.0 and 2.0.2 count as 1.0; None: no release is known to have it.
    """

    tflite: Version | None
    litert: Version | None

    def __str__(self) -> str:
        names = [f"TensorFlow Lite {show(self.tflite)}"] if self.tflite else []
        return ", ".join([*names, *([f"LiteRT {show(self.litert)}"] if self.litert else [])])

    def in_runtime(self, runtime: str) -> bool | None:
        """Whether a runtime, "2.1.0" of LiteRT or "tflite-2.14.0", has it; None: not known.

        Raises:
            InputError: `runtime` is no version.
        """
        if runtime.startswith(TFLITE_PREFIX):
            version = parse_version(runtime.removeprefix(TFLITE_PREFIX), "--runtime tflite-")
            return None if self.tflite is None else not older(version, self.tflite)
        version = parse_version(runtime, "--runtime")
        return None if self.litert is None else not older(version, self.litert)


def oldest_runtime(operator: str, version: int) -> Oldest | None:
    """The oldest runtimes that have a version of a builtin operator; None: the table does not know it."""
    versions = _TABLE.get(operator, ())
    return versions[version - 1] if 0 < version <= len(versions) else None


def _entry(text: str) -> Oldest | None:
    """`2.11` is TensorFlow Lite and so LiteRT 1.0; `2.21/2.1` is TensorFlow Lite 2.21 and LiteRT 2.1."""
    if text == "-":
        return None
    tflite, _, litert = text.partition("/")
    oldest = parse_version(tflite, "table")
    if litert:
        return Oldest(oldest, parse_version(litert, "table"))
    return Oldest(oldest, None if older(LAST_TFLITE, oldest) else FIRST_LITERT)


# An operator and the oldest runtime of its version 1, 2, 3, ...
_ROWS = """
ABS 1.13 2.4 2.5 2.6 2.12
ADD 1.5 1.14 2.4 2.6 2.13 2.23/2.1.6
ADD_N 1.14
ARG_MAX 1.9 1.14 2.9
ARG_MIN 1.9 1.14 2.9
ASSIGN_VARIABLE 2.6
ATAN2 2.10
AVERAGE_POOL_2D 1.5 1.14 2.3
BATCH_MATMUL 2.3 2.3 2.4 2.5
BATCH_TO_SPACE_ND 1.6 1.14 2.3 2.12
BIDIRECTIONAL_SEQUENCE_LSTM 1.14 1.14 1.14
BIDIRECTIONAL_SEQUENCE_RNN 1.14 1.14 2.3
BITCAST 2.13
BITWISE_XOR 2.13
BROADCAST_ARGS 2.6
BROADCAST_TO - 2.5 2.5 2.23/2.2
BUCKETIZE 2.8
CALL_ONCE 2.5
CAST 1.5 2.7 2.8 2.9 2.12 2.15 2.17 2.21/2.1 2.23/2.2
CEIL 1.14
COMPLEX_ABS 2.5
CONCATENATION 1.5 1.14 2.3 2.14 2.21/2.1.2 2.23/2.1.6 2.23/2.2
CONV_2D 1.5 1.14 1.14 2.3 2.4 2.9 2.11 2.15
CONV_3D 2.5
CONV_3D_TRANSPOSE 2.6
COS 1.14 2.23/2.1.6
CUMSUM 2.4
DENSIFY 2.2
DEPTHWISE_CONV_2D 1.5 1.12 1.14 2.2 2.3 2.3 2.11
DEPTH_TO_SPACE 2.1 2.5
DEQUANTIZE 1.13.1 1.14 1.15 2.2 2.7 2.18/2.0.2 2.21/2.1 2.22/2.1.3 2.23/2.2
DILATE 2.15
DIV 1.6 2.3
DYNAMIC_UPDATE_SLICE 2.9 2.17 2.19/2.0.2 2.20/2.0.2 2.21/2.1.2 2.22/2.1.6
ELU 1.14
EMBEDDING_LOOKUP 1.13 1.14 1.14 2.18/2.0.2 2.21/2.1.2
EMBEDDING_LOOKUP_SPARSE 1.5
EQUAL 1.14 1.14 2.3 2.13 2.21/2.1
EXP 1.7 2.12
EXPAND_DIMS 1.10
FAKE_QUANT 1.5 1.10
FILL 1.13 2.3 2.5 2.12 2.23/2.2
FLOOR 1.9
FLOOR_DIV 1.14 1.14 2.13
FLOOR_MOD 1.13 2.13
FULLY_CONNECTED 1.5 1.10 1.14 1.14 2.0 2.1 2.3 2.3 2.3 2.11 2.15 2.17 2.18/2.0.2 2.21/2.1
GATHER 1.6 1.14 1.15 2.4 2.5 2.13 2.15 2.23/2.2
GATHER_ND 1.14 2.3 2.5 2.13 2.16 2.23/2.2
GELU 2.9 2.9 2.23/2.1.6
GREATER 1.14 1.14
GREATER_EQUAL 1.14 1.14 2.13
HARD_SWISH 1.15
HASHTABLE 2.5
HASHTABLE_FIND 2.5
HASHTABLE_IMPORT 2.5
HASHTABLE_LOOKUP 1.5
HASHTABLE_SIZE 2.5
IF 1.15
IMAG 2.5
L2_NORMALIZATION 1.5 1.14
L2_POOL_2D 1.5
LEAKY_RELU 1.13.1 2.3
LESS 1.14 1.14 2.13
LESS_EQUAL 1.14 1.14
LOCAL_RESPONSE_NORMALIZATION 1.5
LOG 1.14 2.15
LOGICAL_AND 1.11
LOGICAL_NOT 1.11
LOGICAL_OR 1.11
LOGISTIC 1.14 1.14 2.3
LOG_SOFTMAX 1.14 1.14
LSH_PROJECTION 1.5
LSTM 1.7 1.10 1.14 2.3
MATRIX_DIAG 1.14
MATRIX_SET_DIAG 1.14
MAXIMUM 1.14 1.14 2.3 2.3
MAX_POOL_2D 1.5 1.14 2.3
MEAN 1.6 1.14 2.4
MINIMUM 1.14 1.14 2.3 2.3
MIRROR_PAD 1.13.1 2.3 2.12
MUL 1.5 1.14 1.15 2.3 2.6 2.11 2.13 2.23/2.1.6
MULTINOMIAL 2.8
NEG 1.9
NON_MAX_SUPPRESSION_V4 2.1
NON_MAX_SUPPRESSION_V5 2.1
NOT_EQUAL 1.14 1.14 2.3 2.21/2.1
ONE_HOT 1.11
PACK 1.11 1.14 2.3 2.13 2.23/2.2
PAD 1.5 1.14 2.4 2.6 2.20/2.0.2 2.23/2.2
PADV2 1.9 1.14 2.4 2.6 2.20/2.0.2 2.23/2.2
POW 1.10
PRELU 1.8
QUANTIZE 1.14 1.15 2.7 2.21/2.1 2.21/2.1.3 2.21/2.1.3
RANDOM_STANDARD_NORMAL 2.8
RANDOM_UNIFORM 2.8
RANGE 1.13 2.14
RANK 1.14
READ_VARIABLE 2.6
REAL 2.5
REDUCE_ALL 2.6
REDUCE_ANY 1.11
REDUCE_MAX 1.11 1.14 2.5
REDUCE_MIN 1.11 1.14 2.5
REDUCE_PROD 1.11 2.6
REDUCE_WINDOW 2.15
RELU 1.5 2.1 2.5
RELU6 1.5 1.14 2.5
RELU_0_TO_1 2.10
RELU_N1_TO_1 1.5
RESHAPE 1.5
RESIZE_BILINEAR 1.7 1.14 2.2 2.5
RESIZE_NEAREST_NEIGHBOR 1.13.1 1.14 2.3 2.4
REVERSE_SEQUENCE 1.14
REVERSE_V2 1.14 2.2 2.5 2.23/2.2
RFFT2D 2.5
RIGHT_SHIFT 2.13
RNN 1.5 1.14 2.3
ROUND 1.14
RSQRT 1.10 2.5 2.15
SCATTER_ND 2.1
SEGMENT_SUM 2.2
SELECT 1.14 1.14 2.12 2.12
SELECT_V2 2.2 2.12
SHAPE 1.10
SIGN 2.11 2.12
SIN 1.9 2.23/2.1.6
SKIP_GRAM 1.5
SLICE 1.14 1.14 1.14 2.4 2.5 2.14 2.21/2.1 2.23/2.1.6
SOFTMAX 1.5 1.14 2.3 2.23/2.1.6
SPACE_TO_BATCH_ND 1.6 1.14 2.3 2.12
SPACE_TO_DEPTH 1.5 1.14
SPARSE_TO_DENSE 1.9 1.14 1.15
SPLIT 1.5 1.14 1.14 2.3 2.23/2.2
SPLIT_V 1.13.1 2.3 2.23/2.2
SQRT 1.10 2.21/2.0.2
SQUARE 1.12
SQUARED_DIFFERENCE 1.13.1 2.5
SQUEEZE 1.6 2.5
STABLEHLO_ADD 2.16
STABLEHLO_AND 2.17
STABLEHLO_CASE 2.17
STABLEHLO_CBRT 2.17
STABLEHLO_COMPOSITE 2.17
STABLEHLO_GATHER 2.16
STABLEHLO_MAXIMUM 2.16
STABLEHLO_MINIMUM 2.16
STABLEHLO_MULTIPLY 2.16
STABLEHLO_PAD 2.16
STABLEHLO_REDUCE_WINDOW 2.16
STABLEHLO_RNG_BIT_GENERATOR 2.15
STABLEHLO_SCATTER 2.15
STABLEHLO_SHIFT_LEFT 2.17
STRIDED_SLICE 1.6 1.14 2.1 2.2 2.5 2.6 2.14 2.14
SUB 1.6 1.14 2.3 2.4 2.4
SUM 1.10 1.15
SVDF 1.5 1.14 2.2 2.3
TANH 1.14 1.14 2.3
TILE 1.10.1 2.2 2.8
TOPK_V2 1.7 1.14 2.13
TRANSPOSE 1.6 1.14 1.15 2.3 2.4 2.12 2.14.4 2.22/2.1.6 2.23/2.1.6
TRANSPOSE_CONV 1.9 2.2 2.3 2.13 2.15
UNIDIRECTIONAL_SEQUENCE_LSTM 1.13.1 1.14 2.3 2.12
UNIDIRECTIONAL_SEQUENCE_RNN 1.14 1.14 2.3
UNIQUE 1.14
UNPACK 1.11 1.14 2.2 2.3 2.22/2.1.3 2.23/2.2
UNSORTED_SEGMENT_MAX 2.10
UNSORTED_SEGMENT_MIN 2.11
UNSORTED_SEGMENT_PROD 2.10
UNSORTED_SEGMENT_SUM 2.10
VAR_HANDLE 2.6
WHERE 1.14 2.8
WHILE 1.15
ZEROS_LIKE 1.12
"""

_TABLE: dict[str, tuple[Oldest | None, ...]] = {
    name: tuple(map(_entry, versions)) for name, *versions in map(str.split, _ROWS.strip().splitlines())
}
