package org.edgeformer.core.models

import org.edgeformer.core.models.FlatField.Number
import org.edgeformer.core.models.FlatField.Numbers
import org.edgeformer.core.models.FlatField.Table
import org.edgeformer.core.models.FlatField.Tables
import org.edgeformer.core.models.FlatField.Text
import org.edgeformer.core.models.FlatField.Union

// What a `.pte` may hold (ExecuTorch's program.fbs), slot by slot.

/** The file. */
internal val PTE = FlatShape(
    Number(4), // version
    Tables { PLAN },
    Tables { CONSTANT },
    Tables { CONSTANT }, // backend_delegate_data
    Tables { SEGMENT },
    Table { SUBSEGMENTS }, // constant_segment
    Tables { SUBSEGMENTS }, // mutable_data_segments
    Tables { NAMED_DATA },
)

private val CONSTANT = FlatShape(Numbers(1))
private val SEGMENT = FlatShape(Number(8), Number(8))
private val SUBSEGMENTS = FlatShape(Number(4), Numbers(8))
private val NAMED_DATA = FlatShape(Text, Number(4))

private val PLAN = FlatShape(
    Text, // name
    Table { FlatShape(Text, Text) }, // container_meta_type
    Tables { VALUE },
    Numbers(4), // inputs
    Numbers(4), // outputs
    Tables { CHAIN },
    Tables { FlatShape(Text, Text) }, // operators
    Tables { DELEGATE },
    Numbers(8), // non_const_buffer_sizes
    Tables { FlatShape(Number(4), Number(1), Number(1)) }, // non_const_buffer_device
)

private val DELEGATE = FlatShape(Text, Table { FlatShape(Number(1), Number(4)) }, Tables { COMPILE_SPEC })
private val COMPILE_SPEC = FlatShape(Text, Numbers(1))

private val CHAIN = FlatShape(Numbers(4), Numbers(4), Tables { INSTRUCTION }, Tables { FRAMES })
private val FRAMES = FlatShape(Tables { FlatShape(Text, Number(4), Text, Text) })

// InstructionArguments that a reader takes: none moves or jumps.
internal const val KERNEL_CALL = 1
internal const val DELEGATE_CALL = 2
internal const val FREE_CALL = 5

private val INSTRUCTION = FlatShape(
    Number(1),
    Union { kind ->
        when (kind) {
            KERNEL_CALL, DELEGATE_CALL -> FlatShape(Number(4), Numbers(4))
            FREE_CALL -> FlatShape(Number(4))
            else -> null
        }
    },
)

/** KernelTypes as letters, from 1 on: nothing, integer, boolean, float, tensor, text, then lists, the last two of tensors. */
internal const val VALUE_KINDS = "NIBDTXLFAVO"

private val VALUE = FlatShape(
    Number(1),
    Union { kind ->
        when (VALUE_KINDS.getOrNull(kind - 1)) {
            'N' -> FlatShape()
            'I', 'D' -> FlatShape(Number(8))
            'B' -> FlatShape(Number(1))
            'T' -> TENSOR
            'X' -> FlatShape(Text)
            'L', 'F' -> FlatShape(Numbers(8))
            'A' -> FlatShape(Numbers(1))
            'V', 'O' -> FlatShape(Numbers(4))
            else -> null
        }
    },
)

private val TENSOR = FlatShape(
    Number(1), // scalar_type
    Number(4), // storage_offset
    Numbers(4), // sizes
    Numbers(1), // dim_order
    Number(1), // requires_grad
    Number(4), // data_buffer_idx
    Table { FlatShape(Number(4), Number(4), Number(4)) }, // allocation_info
    Number(1), // layout
    Number(1), // shape_dynamism
    Table { FlatShape(Number(8), Text, Number(1), Number(1), Number(1)) }, // extra_tensor_info
)
