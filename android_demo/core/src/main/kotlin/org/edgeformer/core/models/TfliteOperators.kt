package org.edgeformer.core.models

// Numbers of TensorFlow Lite's schema for the operators that a reader knows.

/** BuiltinOperator to its name, and the number of its BuiltinOptions; 0: it has none. */
internal val TFLITE_OPERATORS: Map<Int, Pair<String, Int>> = mapOf(
    0 to ("ADD" to 11), 1 to ("AVERAGE_POOL_2D" to 5), 2 to ("CONCATENATION" to 10), 3 to ("CONV_2D" to 1),
    4 to ("DEPTHWISE_CONV_2D" to 2), 6 to ("DEQUANTIZE" to 38), 7 to ("EMBEDDING_LOOKUP" to 0), 8 to ("FLOOR" to 0),
    9 to ("FULLY_CONNECTED" to 8), 11 to ("L2_NORMALIZATION" to 12), 14 to ("LOGISTIC" to 0),
    17 to ("MAX_POOL_2D" to 5), 18 to ("MUL" to 21), 19 to ("RELU" to 0), 20 to ("RELU_N1_TO_1" to 0),
    21 to ("RELU6" to 0), 22 to ("RESHAPE" to 17), 23 to ("RESIZE_BILINEAR" to 15),
    25 to ("SOFTMAX" to 9), 28 to ("TANH" to 0), 34 to ("PAD" to 22),
    36 to ("GATHER" to 23), 39 to ("TRANSPOSE" to 26), 40 to ("MEAN" to 27), 41 to ("SUB" to 28), 42 to ("DIV" to 29),
    43 to ("SQUEEZE" to 30), 45 to ("STRIDED_SLICE" to 32), 47 to ("EXP" to 33), 49 to ("SPLIT" to 35),
    50 to ("LOG_SOFTMAX" to 36), 53 to ("CAST" to 37), 54 to ("PRELU" to 0), 55 to ("MAXIMUM" to 39),
    56 to ("ARG_MAX" to 40), 57 to ("MINIMUM" to 39), 58 to ("LESS" to 41), 59 to ("NEG" to 42),
    60 to ("PADV2" to 43), 61 to ("GREATER" to 44), 62 to ("GREATER_EQUAL" to 45), 63 to ("LESS_EQUAL" to 46),
    64 to ("SELECT" to 47), 65 to ("SLICE" to 48), 66 to ("SIN" to 0), 69 to ("TILE" to 51),
    70 to ("EXPAND_DIMS" to 52), 71 to ("EQUAL" to 53), 72 to ("NOT_EQUAL" to 54), 73 to ("LOG" to 0),
    74 to ("SUM" to 27), 75 to ("SQRT" to 0), 76 to ("RSQRT" to 0), 78 to ("POW" to 56), 79 to ("ARG_MIN" to 57),
    81 to ("REDUCE_PROD" to 27), 82 to ("REDUCE_MAX" to 27), 83 to ("PACK" to 59), 84 to ("LOGICAL_OR" to 60),
    85 to ("ONE_HOT" to 61), 86 to ("LOGICAL_AND" to 62), 87 to ("LOGICAL_NOT" to 63), 88 to ("UNPACK" to 64),
    89 to ("REDUCE_MIN" to 27), 90 to ("FLOOR_DIV" to 65), 91 to ("REDUCE_ANY" to 27), 92 to ("SQUARE" to 66),
    94 to ("FILL" to 68), 95 to ("FLOOR_MOD" to 72),
    97 to ("RESIZE_NEAREST_NEIGHBOR" to 74), 98 to ("LEAKY_RELU" to 75), 99 to ("SQUARED_DIFFERENCE" to 76),
    101 to ("ABS" to 78), 102 to ("SPLIT_V" to 79), 104 to ("CEIL" to 0), 107 to ("GATHER_ND" to 83),
    108 to ("COS" to 84), 111 to ("ELU" to 0), 114 to ("QUANTIZE" to 89), 116 to ("ROUND" to 0),
    117 to ("HARD_SWISH" to 91), 123 to ("SELECT_V2" to 98), 126 to ("BATCH_MATMUL" to 101), 128 to ("CUMSUM" to 102),
    130 to ("BROADCAST_TO" to 104), 140 to ("REDUCE_ALL" to 27), 150 to ("GELU" to 116),
    151 to ("DYNAMIC_UPDATE_SLICE" to 117), 158 to ("SIGN" to 123),
)
