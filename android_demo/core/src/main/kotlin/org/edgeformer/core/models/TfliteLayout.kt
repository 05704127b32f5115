package org.edgeformer.core.models

import org.edgeformer.core.models.FlatField.Number
import org.edgeformer.core.models.FlatField.Numbers
import org.edgeformer.core.models.FlatField.Tables
import org.edgeformer.core.models.FlatField.Text
import org.edgeformer.core.models.FlatField.Union

// What a `.tflite` may hold (TensorFlow Lite's schema.fbs, version 3), slot by slot.

/** The file. */
internal val TFLITE = FlatShape(
    Number(4), // version
    Tables { OPERATOR_CODE },
    Tables { SUBGRAPH },
    Text, // description
    Tables { BUFFER },
    Numbers(4), // metadata_buffer
    Tables { METADATA },
    Tables { SIGNATURE },
)

private val OPERATOR_CODE = FlatShape(Number(1), Text, Number(4), Number(4))

private val SUBGRAPH = FlatShape(
    Tables { TENSOR },
    Numbers(4), // inputs
    Numbers(4), // outputs
    Tables { OPERATOR },
    Text, // name
    Number(4), // debug_metadata_index
)

private val TENSOR = FlatShape(
    Numbers(4), // shape
    Number(1), // type
    Number(4), // buffer
    Text, // name
    FlatField.Table { QUANTIZATION },
    Number(1), // is_variable
    null, // sparsity
    Numbers(4), // shape_signature
)

private val QUANTIZATION = FlatShape(
    Numbers(4), // min
    Numbers(4), // max
    Numbers(4), // scale
    Numbers(8), // zero_point
    Number(1), // details_type
    Union { kind -> if (kind == BLOCKWISE) BLOCKWISE_QUANTIZATION else null },
    Number(4), // quantized_dimension
)

internal const val BLOCKWISE = 2
private val BLOCKWISE_QUANTIZATION = FlatShape(Number(4), Number(4), Number(4))

private val OPERATOR = FlatShape(
    Number(4), // opcode_index
    Numbers(4), // inputs
    Numbers(4), // outputs
    Number(1), // builtin_options_type
    Union(::optionsOf),
    Numbers(1), // custom_options
    Number(1), // custom_options_format
    Numbers(1), // mutating_variable_inputs
    Numbers(4), // intermediates
    Number(8), // large_custom_options_offset
    Number(8), // large_custom_options_size
    Number(1), // builtin_options_2_type
)

private val BUFFER = FlatShape(Numbers(1), Number(8), Number(8))
private val METADATA = FlatShape(Text, Number(4))
private val SIGNATURE = FlatShape(Tables { TENSOR_MAP }, Tables { TENSOR_MAP }, Text, null, Number(4))
private val TENSOR_MAP = FlatShape(Text, Number(4))

// BuiltinOptions whose fields are not all numbers. Those of other operators than a reader knows are refused later.
private const val FULLY_CONNECTED = 8
private const val RESHAPE = 17
private const val SQUEEZE = 30
private const val LAST_OPTIONS = 126

private val ONE_ARRAY = FlatShape(Numbers(4))
private val FULLY_CONNECTED_OPTIONS = FlatShape(Number(1), Number(1), Number(1), Number(1), Number(1), Numbers(1))

/** Options of numbers: at most fourteen of them, of 1 to 8 bytes. */
private val NUMBERS = FlatShape(*Array<FlatField?>(14) { FlatField.Anything })

private fun optionsOf(kind: Int): FlatShape? = when (kind) {
    FULLY_CONNECTED -> FULLY_CONNECTED_OPTIONS
    RESHAPE, SQUEEZE -> ONE_ARRAY
    in 1..LAST_OPTIONS -> NUMBERS
    else -> null
}
