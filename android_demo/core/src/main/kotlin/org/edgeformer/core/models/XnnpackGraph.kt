package org.edgeformer.core.models

import java.nio.ByteBuffer
import java.nio.ByteOrder

// XNNHeader: four zeros, magic, its length (2), offset (4) and size (4) of the flatbuffer, offset (4) and size (8) of constants.
private const val HEADER_BYTES = 30
private const val MAGIC = "XH00"
private const val NO_ID = 0xFFFFFFFFL
private const val NO_OFFSET = -1L

/** Flags of a value that the call hands over, one of them of each. */
private const val EXTERNAL_INPUT = 1L
private const val EXTERNAL_OUTPUT = 2L

/** A flag of a fully connected node: its weights are (inputs, outputs). */
private const val TRANSPOSED_WEIGHTS = 1L

/** XNN_MAX_TENSOR_DIMS. */
private const val MAX_RANK = 6

/** XNNDatatype: bits of the types that a constant may have, and the types that only computed values have. */
private val CONSTANT_BITS =
    mapOf(1 to 32, 2 to 16, 3 to 8, 4 to 8, 5 to 32, 6 to 8, 7 to 32, 8 to 4, 10 to 4, 12 to 32, 14 to 16)
private val COMPUTED_TYPES = setOf(1, 2, 3, 4, 9, 11, 12, 14)

/**
 * Looks at the graph that ExecuTorch's delegate hands to XNNPACK, which takes its sizes and indices for true.
 *
 * @param file the whole file.
 * @param data the delegate's segment in it.
 * @param namedSize the size of named data by its key; refuses a key that there is none for.
 * @param operands how many the call has.
 * @param steps of the file: a million calls may be of one delegate.
 */
internal fun checkXnnpack(file: ByteBuffer, data: Piece, namedSize: (String) -> Long, operands: Int, steps: Steps) {
    val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    if (data.size < HEADER_BYTES) refuse("XNNPACK's data is shorter than its header")
    val magic = String(CharArray(4) { (bytes.get(data.begin + 4 + it).toInt() and 0xFF).toChar() })
    if (magic != MAGIC || bytes.getShort(data.begin + 8).toInt() != HEADER_BYTES) {
        refuse("XNNPACK's data does not begin with $MAGIC")
    }
    val (start, size, constants) = listOf(10, 14, 18).map { bytes.getInt(data.begin + it).toLong() and 0xFFFFFFFFL }
    val constantsSize = bytes.getLong(data.begin + 22)
    checkRange(start, size, data.size.toLong(), "XNNPACK's graph")
    checkRange(constants, constantsSize, data.size.toLong(), "XNNPACK's constants")
    val graph = FlatBuffer(file, data.begin + start.toInt(), size.toInt(), steps).root("XN01", XNNPACK_GRAPH)
    val sizes = graph.tables(8).map { constantSize(it, constantsSize, namedSize) }
    if (graph.uint(3) > operands) refuse("XNNPACK's graph has ${graph.uint(3)} operands, its call $operands")
    val values = XnnpackValues(graph, sizes)
    if ((graph.numbers(4, 4) + graph.numbers(5, 4)).any { it !in values.shapes }) {
        refuse("XNNPACK's graph names an input or output that it has not")
    }
    val there = (values.constants + graph.numbers(4, 4)).toHashSet()
    for (each in graph.tables(1)) {
        val kind = each.byte(0)
        val node = xnnpackNode(kind)
        val table = each.table(1)
        if (node == null || table == null) {
            refuse("XNNPACK's graph has a node of the kind $kind, which is none that a reader knows")
        }
        checkNode(kind, node, table, values.shapes)
        checkOrder(kind, node, table, there)
        if (kind in setOf(XNNPACK_FULLY_CONNECTED, XNNPACK_CONV, XNNPACK_DEPTHWISE_CONV)) {
            checkWeights(kind, node, table, values)
        }
    }
}

private fun constantSize(table: FlatTable, room: Long, namedSize: (String) -> Long): Long {
    val (offset, size, key) = Triple(table.long(0, NO_OFFSET), table.long(1), table.text(2))
    if (key.isNotEmpty()) {
        if (size !in 0..namedSize(key)) refuse("a constant of XNNPACK is longer than its named data")
    } else if (size != 0L || offset !in NO_OFFSET..0) {
        checkRange(offset, size, room, "a constant of XNNPACK")
    }
    return size
}

/** The shape of each value, by its id, and the ids of constants. */
private class XnnpackValues(graph: FlatTable, private val sizes: List<Long>) {
    val shapes = HashMap<Long, Shape>()
    val constants = HashSet<Long>()
    private val externals = graph.uint(3)
    private val outside = HashSet<Long>()

    init {
        graph.tables(2).forEach(::read)
    }

    private fun read(table: FlatTable) {
        val value = table.table(1)
        val tensor = if (table.byte(0) == 1) value else value?.table(0)
        if (value == null || tensor == null) refuse("XNNPACK's graph has a value that is no tensor")
        val dims = tensor.numbers(2, 4)
        if (dims.size > MAX_RANK || tensor.uint(1) != dims.size.toLong()) {
            refuse("a tensor of XNNPACK has ${dims.size} sizes and states ${tensor.uint(1)}")
        }
        val constant = tensor.uint(3)
        val shape = checkShape(dims, "a tensor of XNNPACK", computed = constant == 0L)
        checkContent(tensor.short(0), constant, shape)
        if (table.byte(0) == 2) checkScales(value, shape)
        val (external, flags) = tensor.uint(4) to tensor.uint(5)
        if (flags !in if (external == NO_ID) listOf(0L) else listOf(EXTERNAL_INPUT, EXTERNAL_OUTPUT)) {
            refuse("a value of XNNPACK has the operand $external and the flags $flags")
        }
        if (external != NO_ID && (external >= externals || !outside.add(external) || constant != 0L)) {
            refuse("XNNPACK's graph has the operand $external of $externals, or twice, or as a constant")
        }
        val number = tensor.uint(6)
        if (number == NO_ID || shapes.put(number, shape) != null) refuse("XNNPACK's graph has the value $number twice")
        if (constant != 0L) constants += number
    }

    private fun checkContent(dtype: Int, constant: Long, shape: Shape) {
        if (constant == 0L) {
            if (dtype !in COMPUTED_TYPES) refuse("a value of XNNPACK has the type $dtype")
            return
        }
        val bits = CONSTANT_BITS[dtype]
        if (constant >= sizes.size || bits == null) {
            refuse("a constant of XNNPACK has the number $constant of ${sizes.size} and the type $dtype")
        }
        if (bytesOf(shape, bits) > sizes[constant.toInt()]) {
            refuse("a constant of XNNPACK has ${sizes[constant.toInt()]} bytes for the shape $shape")
        }
    }

    /** Refuses scales that are fewer than the channels that they are for. */
    private fun checkScales(value: FlatTable, shape: Shape) {
        val kind = value.byte(1)
        val scales = value.table(2) ?: refuse("a tensor of XNNPACK has no scales")
        if (kind == 3 && scales.int(0) !in 0..shape.size) {
            refuse("a tensor of XNNPACK has scales for more axes than it has")
        }
        if (kind == 2 || kind == 3) return
        val (axis, group) = scales.int(1) to scales.int(2)
        if (axis !in shape.indices) refuse("a tensor of XNNPACK has scales along the axis $axis of $shape")
        var needed = shape[axis].toLong()
        if (kind == 4) {
            if (group < 1 || shape.size != 2 || shape[1 - axis] % group != 0) {
                refuse("a tensor of XNNPACK has groups of $group")
            }
            needed *= shape[1 - axis] / group
        }
        val (buffer, stated) = if (kind == 1) scales.uint(2) to scales.uint(3) else scales.uint(4) to scales.uint(5)
        val bytes = if (kind == 1) 4 else 2
        if (buffer != 0L && (buffer >= sizes.size || stated * bytes > sizes[buffer.toInt()])) {
            refuse("a tensor of XNNPACK has scales that are not there")
        }
        val found = if (buffer != 0L) stated else scales.count(0, 4).toLong()
        if (found < needed) refuse("a tensor of XNNPACK has $found scales for $needed channels")
    }
}

private fun checkNode(kind: Int, node: XnnpackNode, table: FlatTable, values: Map<Long, Shape>) {
    for (field in node.inputs + node.output + listOfNotNull(node.optional)) {
        val number = table.uint(field)
        if (number !in values && !(field == node.optional && number == NO_ID)) {
            refuse("a node of XNNPACK reads or writes the value $number, which its graph has not")
        }
    }
    val source = values.getValue(table.uint(node.inputs[0]))
    if (kind == XNNPACK_RESIZE) {
        val (sides, result) = listOf(table.uint(0), table.uint(1)) to values.getValue(table.uint(node.output))
        if (resized(source, listOf(1, 2), sides) != result.sizes()) refuse("a node of XNNPACK resizes $source to $sides, not to $result")
    }
    if (node.lists.isEmpty()) return
    val lists = node.lists.map { table.numbers(it, 4) }
    val isFit = lists.all { it.size <= MAX_RANK } && when (kind) {
        XNNPACK_PAD -> lists.all { it.size == source.size } &&
            checkShape(source.mapIndexed { axis, size -> lists[0][axis] + size + lists[1][axis] }, "a pad").size > -1
        XNNPACK_TRANSPOSE -> table.uint(0) == lists[0].size.toLong() && lists[0].sorted() == source.indices.map { it.toLong() }
        XNNPACK_RESHAPE -> table.uint(0) == checkShape(lists[0], "a reshape of XNNPACK").size.toLong()
        else -> table.uint(0) == source.size.toLong() && lists.all { it.size == source.size } &&
            source.indices.all { lists[0][it] + lists[1][it] <= source[it] }
    }
    if (!isFit) refuse("a node of XNNPACK of the kind $kind does not go with its input of $source")
}

/** Refuses a node that reads what is not there yet, or writes what is: XNNPACK plans memory for each value once. */
private fun checkOrder(kind: Int, node: XnnpackNode, table: FlatTable, there: MutableSet<Long>) {
    val reads = (node.inputs + listOfNotNull(node.optional)).map { table.uint(it) }
    val writes = listOf(table.uint(node.output))
    if (reads.any { it != NO_ID && it !in there } || writes.any { it in there }) {
        refuse("a node of XNNPACK of the kind $kind reads $reads before they are written, or writes $writes again")
    }
    there += writes
}

/** Refuses weights that are not as the node says: they are packed by its numbers when the model is loaded. */
private fun checkWeights(kind: Int, node: XnnpackNode, table: FlatTable, values: XnnpackValues) {
    val (sourceId, weights, bias) = (node.inputs + listOfNotNull(node.optional)).map { table.uint(it) }
    val source = values.shapes.getValue(sourceId).sizes()
    val found = values.shapes.getValue(weights).sizes()
    val outputs =
        if (kind == XNNPACK_FULLY_CONNECTED) denseOutputs(table, source, found)
        else convOutputs(kind, table, source, found)
    if (outputs == null || weights !in values.constants) {
        refuse("a node of XNNPACK of the kind $kind has weights of $found for $source, or computed ones")
    }
    if (bias != NO_ID && (bias !in values.constants || values.shapes.getValue(bias).sizes() != listOf(outputs))) {
        refuse("a node of XNNPACK of the kind $kind has a bias of ${values.shapes.getValue(bias)} for $outputs channels")
    }
}

/** How many channels a fully connected node makes; null where its weights do not fit. */
private fun denseOutputs(table: FlatTable, source: Sizes, weights: Sizes): Long? {
    if (weights.size != 2) return null
    val isTransposed = table.uint(4) and TRANSPOSED_WEIGHTS != 0L
    val (outputs, inputs) = if (isTransposed) weights.reversed() else weights
    return if (source.lastOrNull() == inputs) outputs else null
}

/** How many channels a convolution makes; null where its weights do not fit. */
private fun convOutputs(kind: Int, table: FlatTable, source: Sizes, weights: Sizes): Long? {
    val (height, width) = table.uint(4) to table.uint(5)
    val (inputs, each, groups) = listOf(10, 11, 12).map { table.uint(it) }
    val isDepthwise = kind == XNNPACK_DEPTHWISE_CONV
    if (isDepthwise && inputs != 1L) refuse("a depthwise convolution of XNNPACK has groups of $inputs channels")
    // A product of two numbers of 32 bits is negative where it overflows, and no size is.
    val outputs = each * groups
    val wanted = if (isDepthwise) listOf(1L, height, width, outputs) else listOf(outputs, height, width, inputs)
    // Values that are quantized on the way state their sizes with the channels before the rows.
    val isFit = weights == wanted && source.size == 4 && groups * inputs in listOf(source[1], source[3])
    return if (isFit) outputs else null
}
