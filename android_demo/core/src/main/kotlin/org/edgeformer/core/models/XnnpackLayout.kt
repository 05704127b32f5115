package org.edgeformer.core.models

import org.edgeformer.core.models.FlatField.Number
import org.edgeformer.core.models.FlatField.Numbers
import org.edgeformer.core.models.FlatField.Table
import org.edgeformer.core.models.FlatField.Tables
import org.edgeformer.core.models.FlatField.Text
import org.edgeformer.core.models.FlatField.Union

// What the graph that ExecuTorch's delegate hands to XNNPACK may hold (its runtime_schema.fbs), slot by slot.

/** The graph. */
internal val XNNPACK_GRAPH = FlatShape(
    Text, // version
    Tables { FlatShape(Number(1), Union(::nodeOf), Number(4), Table { FlatShape(Number(4), Number(4)) }) },
    Tables { FlatShape(Number(1), Union(::valueOf)) },
    Number(4), // num_externs
    Numbers(4), // input_ids
    Numbers(4), // output_ids
    Tables { FlatShape(Numbers(1)) }, // constant_buffer
    Numbers(4), // mem_buffer_sizes
    Tables { FlatShape(Number(8), Number(8), Text) }, // constant_data
)

private val TENSOR =
    FlatShape(Number(2), Number(4), Numbers(4), Number(4), Number(4), Number(4), Number(4), Number(2))

private fun valueOf(kind: Int): FlatShape? = when (kind) {
    1 -> TENSOR
    2 -> FlatShape(Table { TENSOR }, Number(1), Union(::scalesOf))
    else -> null
}

private fun scalesOf(kind: Int): FlatShape? = when (kind) {
    1 -> FlatShape(Numbers(4), Number(4), Number(4), Number(4))
    2 -> FlatShape(Number(4), Number(4))
    3 -> FlatShape(Number(4))
    4 -> FlatShape(Numbers(4), Number(4), Number(4), Numbers(2), Number(4), Number(4))
    else -> null
}

/** Where a node's table has its ids, those of results, those that may be absent, and its lists of a number per axis. */
internal class XnnpackNode(
    val inputs: List<Int>,
    val output: Int,
    val optional: Int? = null,
    val lists: List<Int> = emptyList(),
)

internal const val XNNPACK_FULLY_CONNECTED = 2
internal const val XNNPACK_TRANSPOSE = 5
internal const val XNNPACK_CONV = 7
internal const val XNNPACK_RESIZE = 9
internal const val XNNPACK_PAD = 10
internal const val XNNPACK_DEPTHWISE_CONV = 13
internal const val XNNPACK_RESHAPE = 20

/** XNodeUnion, by number. What is not here has no rule: pooling with indices, attention. */
internal fun xnnpackNode(kind: Int): XnnpackNode? = when (kind) {
    3, 4, 6, 17, 18, 19, 22, 23, 24, 27, 28, 30, 40, 41, 42, 43, 44, 45, 46, 47 -> XnnpackNode(listOf(0), 1)
    1, 8, 12, 15, 16, 26, 31, 37 -> XnnpackNode(listOf(0, 1), 2)
    XNNPACK_CONV, XNNPACK_DEPTHWISE_CONV -> XnnpackNode(listOf(15, 16), 18, optional = 17)
    11, 14 -> XnnpackNode(listOf(10), 11)
    XNNPACK_FULLY_CONNECTED -> XnnpackNode(listOf(0, 1), 3, optional = 2)
    XNNPACK_TRANSPOSE -> XnnpackNode(listOf(2), 3, lists = listOf(1))
    XNNPACK_RESIZE -> XnnpackNode(listOf(2), 3)
    XNNPACK_PAD -> XnnpackNode(listOf(3), 4, lists = listOf(0, 1))
    XNNPACK_RESHAPE -> XnnpackNode(listOf(2), 3, lists = listOf(1))
    25, 29 -> XnnpackNode(listOf(1), 2)
    32 -> XnnpackNode(listOf(1, 2), 5)
    33 -> XnnpackNode(listOf(1, 2, 3), 5)
    34 -> XnnpackNode(listOf(1, 2, 3, 4), 5)
    35 -> XnnpackNode(listOf(3), 4, lists = listOf(1, 2))
    38 -> XnnpackNode(listOf(1, 2, 3, 4, 7), 5)
    else -> null
}

/** All fields of a node are numbers of four bytes but its lists. */
private fun nodeOf(kind: Int): FlatShape? {
    val node = xnnpackNode(kind) ?: return null
    return FlatShape(*Array<FlatField?>(20) { if (it in node.lists) Numbers(4) else Number(4) })
}
