package org.edgeformer.core.models

/**
 * A tensor of a subgraph.
 *
 * @property numbers gives those of a small constant of integers; null: it is none.
 */
internal class TfliteTensor(
    val shape: Shape,
    val dtype: Int,
    val isConstant: Boolean,
    val numbers: (() -> List<Long>)?,
)

/** An operator with its operands, null where one is absent, and its options. */
internal class TfliteCall(val inputs: List<TfliteTensor?>, private val options: FlatTable?) {
    fun tensor(index: Int): TfliteTensor = inputs.getOrNull(index) ?: refuse("its operand $index is missing")

    fun shape(index: Int): Shape = tensor(index).shape

    val shapes: List<Shape> get() = inputs.indices.map(::shape)

    fun has(index: Int) = inputs.getOrNull(index) != null

    /** The integers of an operand that decides a shape. */
    fun constant(index: Int): List<Long> = tensor(index).numbers?.invoke()
        ?: refuse("its operand $index decides its shape and is no small constant of integers")

    /** The only integer of an operand. */
    fun single(index: Int): Long = constant(index).singleOrNull() ?: refuse("its operand $index is to be one number")

    val hasOptions: Boolean get() = options != null

    fun int(field: Int, default: Int = 0): Long = (options?.int(field, default) ?: default).toLong()

    fun byte(field: Int): Int = options?.byte(field) ?: 0

    fun flag(field: Int): Boolean = byte(field) != 0

    fun ints(field: Int): List<Long> = options?.ints(field).orEmpty().map { it.toLong() }
}

private const val SAME_PADDING = 0
private const val VALID_PADDING = 1

/** The shapes of an operator's results; null: no reader knows it. */
internal fun tfliteShapes(name: String, call: TfliteCall): List<Sizes>? = when (name) {
    in UNARY -> listOf(call.shape(0).sizes())
    in BINARY, "SELECT" -> listOf(broadcast(call.shapes))
    in REDUCTIONS -> listOf(reduced(call.shape(0), call.constant(1).map { axisOf(it, call.shape(0).size).toLong() }.distinct(), call.flag(0)))
    "ARG_MAX", "ARG_MIN" -> listOf(reduced(call.shape(0), listOf(call.single(1)), keep = false))
    "AVERAGE_POOL_2D", "MAX_POOL_2D" -> listOf(pooled(call))
    "BATCH_MATMUL" -> listOf(batchProduct(call))
    "BROADCAST_TO" -> listOf(broadcastTo(call))
    "CONCATENATION" -> listOf(concatenated(call.shapes, call.int(0)))
    "CONV_2D" -> listOf(convolved(call))
    "DEPTHWISE_CONV_2D" -> listOf(depthwise(call))
    "DYNAMIC_UPDATE_SLICE" -> listOf(updated(call))
    "EMBEDDING_LOOKUP" -> listOf(looked(call))
    "EXPAND_DIMS" -> listOf(unsqueezed(call.shape(0), listOf(call.single(1))))
    "FILL" -> listOf(wanted(call.constant(0)))
    "FULLY_CONNECTED" -> listOf(connected(call))
    "GATHER" -> listOf(gathered(call))
    "GATHER_ND" -> listOf(gatheredByPoints(call))
    "ONE_HOT" -> listOf(oneHot(call))
    "PACK" -> listOf(packed(call))
    "PAD", "PADV2" -> listOf(padded(call.shape(0), call.constant(1).chunked(2).map { it[0] to it.getOrElse(1) { -1 } }))
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR" -> listOf(resized(call.shape(0), listOf(1, 2), call.constant(1)))
    "RESHAPE" -> listOf(reshaped(call.shape(0), reshape(call), zeroCopies = false))
    "SLICE" -> listOf(cut(call))
    "SPLIT" -> split(call)
    "SPLIT_V" -> splitBySizes(call)
    "SQUEEZE" -> listOf(squeezed(call.shape(0), call.ints(0).ifEmpty { null }))
    "STRIDED_SLICE" -> listOf(strided(call))
    "TILE" -> listOf(tiled(call.shape(0), call.constant(1)))
    "TRANSPOSE" -> listOf(permuted(call.shape(0), call.constant(1)))
    "UNPACK" -> unpacked(call)
    else -> null
}

private val UNARY = (
    "ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOG LOGICAL_NOT LOGISTIC LOG_SOFTMAX " +
        "NEG QUANTIZE RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE TANH L2_NORMALIZATION"
    ).split(' ').toSet()
private val BINARY = (
    "ADD DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR MAXIMUM MINIMUM MUL " +
        "NOT_EQUAL POW PRELU SELECT_V2 SQUARED_DIFFERENCE SUB"
    ).split(' ').toSet()
private val REDUCTIONS = "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ANY REDUCE_ALL".split(' ').toSet()

private fun connected(call: TfliteCall): Sizes {
    val (source, weights) = call.shape(0) to call.shape(1)
    if (weights.size != 2 || call.byte(1) != 0) refuse("its weights are $weights, or shuffled")
    val (units, depth) = weights
    checkBias(call, units)
    if (call.flag(2)) {
        if (source.lastOrNull() != depth) refuse("there is no product of $source and $weights")
        return source.sizes().dropLast(1) + units.toLong()
    }
    if (depth == 0 || elements(source) % depth != 0L) refuse("there is no product of $source and $weights")
    return listOf(elements(source) / depth, units.toLong())
}

private fun batchProduct(call: TfliteCall): Sizes {
    val (left, right) = call.shape(0) to call.shape(1)
    if (left.size < 2 || right.size < 2) refuse("it multiplies what are no matrices")
    return product(turned(left, call.flag(0)), turned(right, call.flag(1)))
}

private fun turned(shape: Shape, isTurned: Boolean): Shape =
    if (isTurned) shape.dropLast(2) + shape.last() + shape[shape.size - 2] else shape

private fun convolved(call: TfliteCall): Sizes {
    val (image, kernel) = call.shape(0) to call.shape(1)
    val isFit = image.size == 4 && kernel.size == 4 && kernel[3] > 0 && image[3] % kernel[3] == 0 &&
        image[3] > 0 && kernel[0] % (image[3] / kernel[3]) == 0
    if (!isFit) refuse("it has no convolution of $image with $kernel")
    checkBias(call, kernel[0])
    return sides(call, image, kernel.subList(1, 3).sizes(), 2 to 1, 5 to 4, kernel[0])
}

private fun depthwise(call: TfliteCall): Sizes {
    val (image, kernel) = call.shape(0) to call.shape(1)
    val isFit = image.size == 4 && kernel.size == 4 && kernel[0] == 1 && image[3] > 0 && kernel[3] % image[3] == 0
    if (!isFit) refuse("it has no convolution of $image with $kernel")
    if (call.int(3) !in listOf(0L, (kernel[3] / image[3]).toLong())) refuse("its multiplier is not its kernel's")
    checkBias(call, kernel[3])
    return sides(call, image, kernel.subList(1, 3).sizes(), 2 to 1, 6 to 5, kernel[3])
}

private fun pooled(call: TfliteCall): Sizes {
    val image = call.shape(0)
    if (image.size != 4) refuse("it has no windows over $image")
    return sides(call, image, listOf(call.int(4), call.int(3)), 2 to 1, null, image[3])
}

private fun checkBias(call: TfliteCall, channels: Int) {
    if (call.has(2) && elements(call.shape(2)) != channels.toLong()) {
        refuse("its bias is ${call.shape(2)} for $channels channels")
    }
}

/** (batch, height, width, channels) of windows; the pairs are the fields of height and width. */
private fun sides(
    call: TfliteCall,
    image: Shape,
    kernel: Sizes,
    strides: Pair<Int, Int>,
    dilations: Pair<Int, Int>?,
    channels: Int,
): Sizes {
    val fields = listOf(strides.first to dilations?.first, strides.second to dilations?.second)
    val found = fields.mapIndexed { axis, (strideField, dilationField) ->
        val stride = call.int(strideField)
        val dilation = if (dilationField == null) 1 else call.int(dilationField, default = 1)
        val size = image[1 + axis]
        when (call.byte(0)) {
            SAME_PADDING -> {
                window(size, 1, stride, dilation, 0, 0)
                if (kernel[axis] < 1) refuse("a window of no elements")
                (size + stride - 1) / stride
            }
            VALID_PADDING -> window(size, kernel[axis], stride, dilation, 0, 0)
            else -> refuse("it has the padding ${call.byte(0)}")
        }
    }
    return listOf(image[0].toLong()) + found + channels.toLong()
}

private fun reshape(call: TfliteCall): List<Long> = when {
    call.has(1) -> call.constant(1)
    call.hasOptions -> call.ints(0)
    else -> refuse("it has no shape")
}

private fun packed(call: TfliteCall): Sizes {
    val shapes = call.shapes
    if (shapes.distinct().size != 1 || call.int(0) != shapes.size.toLong()) {
        refuse("it packs what is not alike, or another number of tensors than it states")
    }
    val axis = axisOf(call.int(1), shapes[0].size + 1)
    return shapes[0].sizes().let { it.take(axis) + shapes.size.toLong() + it.drop(axis) }
}

private fun unpacked(call: TfliteCall): List<Sizes> {
    val shape = call.shape(0)
    val axis = axisOf(call.int(1), shape.size)
    if (shape[axis].toLong() != call.int(0) || shape[axis] > MAX_STEERING) {
        refuse("it unpacks ${call.int(0)} tensors from $shape")
    }
    return List(shape[axis]) { withAxis(shape.sizes(), axis, null) }
}

private fun split(call: TfliteCall): List<Sizes> {
    val (shape, count) = call.shape(1) to call.int(0)
    val axis = axisOf(call.single(0), shape.size)
    if (count !in 1..MAX_STEERING || shape[axis] % count != 0L) refuse("$shape cannot be split into $count")
    return List(count.toInt()) { withAxis(shape.sizes(), axis, shape[axis] / count) }
}

private fun splitBySizes(call: TfliteCall): List<Sizes> {
    val (shape, sizes) = call.shape(0) to call.constant(1)
    val axis = axisOf(call.single(2), shape.size)
    val isFit = sizes.isNotEmpty() && sizes.all { it in 0..MAX_SIZE } && sizes.sum() == shape[axis].toLong() &&
        call.int(0) == sizes.size.toLong()
    if (!isFit) refuse("$shape cannot be split into ${sizes.take(9)}")
    return sizes.map { withAxis(shape.sizes(), axis, it) }
}

private fun cut(call: TfliteCall): Sizes {
    val (shape, starts, sizes) = Triple(call.shape(0), call.constant(1), call.constant(2))
    if (starts.size != shape.size || sizes.size != shape.size) {
        refuse("it takes ${starts.size} starts and ${sizes.size} sizes of $shape")
    }
    return shape.mapIndexed { axis, room ->
        val begin = starts[axis]
        val size = if (sizes[axis] == -1L) room - begin else sizes[axis]
        if (begin !in 0..room || size !in 0..room - begin) {
            refuse("it takes ${sizes.take(9)} elements from ${starts.take(9)} on of $shape")
        }
        size
    }
}

private fun strided(call: TfliteCall): Sizes {
    val shape = call.shape(0)
    val (starts, ends, steps) = Triple(call.constant(1), call.constant(2), call.constant(3))
    val isFit = starts.size == ends.size && ends.size == steps.size && steps.size <= shape.size &&
        call.int(2) == 0L && call.int(3) == 0L && !call.flag(5)
    if (!isFit) refuse("its starts, ends and steps are not as many, or it has an ellipsis, new axes or offsets")
    val (beginMask, endMask, shrinkMask) = Triple(call.int(0), call.int(1), call.int(4))
    return shape.mapIndexedNotNull { axis, size ->
        when {
            axis >= starts.size -> size.toLong()
            shrinkMask shr axis and 1 == 1L -> {
                if (starts[axis] !in -size until size || steps[axis] < 1) refuse("it takes number ${starts[axis]} of $size")
                null
            }
            steps[axis] < 1 -> refuse("it has the step ${steps[axis]}")
            else -> {
                val begin = if (beginMask shr axis and 1 == 1L) 0 else starts[axis]
                val end = if (endMask shr axis and 1 == 1L) size.toLong() else ends[axis]
                sliced(size, begin, end, steps[axis])
            }
        }
    }
}

private fun gathered(call: TfliteCall): Sizes {
    val (table, indices, batch) = Triple(call.shape(0), call.shape(1), call.int(1))
    val axis = axisOf(call.int(0), table.size)
    val isFit = batch in 0..minOf(axis, indices.size) && table.take(batch.toInt()) == indices.take(batch.toInt())
    if (!isFit) refuse("it gathers by $indices from $table in $batch batches")
    checkIndices(call.tensor(1)) { table[axis] }
    return table.sizes().let { it.take(axis) + indices.sizes().drop(batch.toInt()) + it.drop(axis + 1) }
}

private fun gatheredByPoints(call: TfliteCall): Sizes {
    val (table, indices) = call.shape(0) to call.shape(1)
    val depth = indices.lastOrNull() ?: 0
    if (depth !in 1..table.size) refuse("it gathers by $indices from $table")
    checkIndices(call.tensor(1)) { table[it % depth] }
    return indices.sizes().dropLast(1) + table.sizes().drop(depth)
}

private fun looked(call: TfliteCall): Sizes {
    val (indices, table) = call.shape(0) to call.shape(1)
    if (indices.size != 1 || table.size < 2) refuse("it looks $indices up in $table")
    checkIndices(call.tensor(0)) { table[0] }
    return indices.sizes() + table.sizes().drop(1)
}

/** Constant indices lie in their axis; those that are computed LiteRT checks itself. */
private fun checkIndices(indices: TfliteTensor, size: (Int) -> Int) {
    indices.numbers?.invoke()?.forEachIndexed { place, index ->
        if (index !in 0 until size(place)) refuse("it gathers number $index of ${size(place)}")
    }
}

private fun wanted(sizes: List<Long>): Sizes {
    if (sizes.any { it !in 0..MAX_SIZE }) refuse("it is to become ${sizes.take(9)}")
    return sizes
}

private fun broadcastTo(call: TfliteCall): Sizes {
    val found = wanted(call.constant(1))
    if (broadcast(listOf(call.shape(0), found.map { it.toInt() })) != found) {
        refuse("${call.shape(0)} cannot be broadcast to $found")
    }
    return found
}

private fun updated(call: TfliteCall): Sizes {
    val (target, update, starts) = Triple(call.shape(0), call.shape(1), call.shape(2))
    val isFit = update.size == target.size && starts == listOf(target.size) && target.indices.all { update[it] <= target[it] }
    if (!isFit) refuse("it writes $update into $target")
    return target.sizes()
}

private fun oneHot(call: TfliteCall): Sizes {
    val (indices, depth) = call.shape(0) to call.single(1)
    if (depth !in 0..MAX_SIZE) refuse("it has the depth $depth")
    val place = axisOf(call.int(0, default = -1), indices.size + 1)
    return indices.sizes().let { it.take(place) + depth + it.drop(place) }
}

/** The results' numbers are those of the first operand. */
internal val TFLITE_MOVES = setOf(
    "BROADCAST_TO", "CAST", "EXPAND_DIMS", "RESHAPE", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
)

/** Which operand numbers the rows of another one, the table. */
internal val TFLITE_INDICES = mapOf("EMBEDDING_LOOKUP" to 0, "GATHER" to 1, "GATHER_ND" to 1)

/** How many rows the table of a call has whose indices stand at `place`; its rule has seen that the call is sound. */
internal fun indexedRows(name: String, call: TfliteCall, place: Int): Int {
    val table = call.shape(1 - place)
    return when (name) {
        "GATHER_ND" -> table.take(call.shape(place).last()).min()
        "GATHER" -> table[axisOf(call.int(0), table.size)]
        else -> table[0]
    }
}
