package org.edgeformer.core.models

/**
 * A value of a graph.
 *
 * @property numbers gives the numbers of a small constant, or of a `Shape`; null: it is computed, elsewhere, or large.
 * @property varies the numbers are sizes, which another length of the inputs may change.
 */
internal class OnnxValue(
    val shape: Shape,
    val dtype: Int = 0,
    val varies: Boolean = false,
    val numbers: (() -> List<Long>)? = null,
)

/**
 * A node.
 *
 * @property inputs its operands; null: absent.
 * @property attributes Long, String, List of Long or OnnxValue by name; others are null.
 * @property outputs how many results are named.
 * @property symbolic the graph takes inputs of any length up to the one that these shapes are of. No rule may then give
 *   a size that falls while the length rises: what is within the limits for the longest is so for all.
 */
internal class OnnxCall(
    val inputs: List<OnnxValue?>,
    val attributes: Map<String, Any?>,
    val outputs: Int,
    val symbolic: Boolean,
) {
    fun shape(index: Int): Shape = (inputs.getOrNull(index) ?: refuse("its operand $index is missing")).shape

    val shapes: List<Shape> get() = inputs.indices.map(::shape)

    fun has(index: Int) = inputs.getOrNull(index) != null

    /** The integers of an operand that decides a shape; [mayVary]: a size of another value is allowed, too. */
    fun constant(index: Int, mayVary: Boolean = false): List<Long> {
        val rank = shape(index).size
        val numbers = inputs[index]?.takeIf { mayVary || !it.varies }?.numbers?.takeIf { rank <= 1 }
        return numbers?.invoke() ?: refuse("its operand $index decides its shape and is no small constant")
    }

    fun int(name: String, default: Long? = null): Long =
        (if (name in attributes) attributes[name] else default) as? Long ?: refuse("it has no integer $name")

    fun ints(name: String, default: List<Long>? = null): List<Long> {
        val found = (if (name in attributes) attributes[name] else default) as? List<*> ?: refuse("it has no integers $name")
        return found.map { it as Long }
    }

    /** Axes, which an operand or, in older opsets, an attribute has; null: neither. */
    fun axes(index: Int): List<Long>? =
        if ("axes" in attributes) ints("axes") else if (has(index)) constant(index) else null
}

/** Of ONNX Runtime's own domain; all others are of ONNX's. */
internal val OWN_OPERATORS = setOf("MatMulNBits")

/** The shapes of a node's results; null: no reader knows it. `Constant` is taken as a constant elsewhere. */
internal fun onnxShapes(operator: String, call: OnnxCall): List<Sizes>? = when (operator) {
    in UNARY -> first(call)
    in BINARY -> listOf(broadcast(call.shapes))
    in REDUCTIONS -> listOf(reducedBy(call))
    "ArgMax", "ArgMin" -> listOf(reduced(call.shape(0), listOf(call.int("axis", 0)), call.int("keepdims", 1) != 0L))
    "AveragePool", "MaxPool" -> pooled(call)
    "Concat" -> listOf(concatenated(call.shapes, call.int("axis")))
    "ConstantOfShape" -> listOf(wanted(call.constant(0)))
    "Conv", "ConvInteger" -> listOf(convolved(call, 1))
    "Dropout" -> List(call.outputs) { call.shape(0).sizes() }
    "DynamicQuantizeLinear" -> listOf(call.shape(0).sizes(), emptyList(), emptyList())
    "Expand" -> listOf(broadcast(listOf(call.shape(0), checkShape(wanted(call.constant(1)), "its result"))))
    "Flatten" -> listOf(flattened(call))
    "Gather" -> listOf(gathered(call))
    "GatherElements" -> listOf(gatheredByElement(call))
    "GatherND" -> listOf(gatheredByPoints(call))
    "Gemm" -> listOf(gemm(call))
    "GlobalAveragePool" -> listOf(call.shape(0).mapIndexed { axis, size -> if (axis < 2) size.toLong() else 1L })
    "MatMul", "MatMulInteger" -> listOf(product(call.shape(0), call.shape(1)))
    "MatMulNBits" -> listOf(packedProduct(call))
    "Pad" -> listOf(paddedBy(call))
    "QLinearConv" -> listOf(convolved(call, 3))
    "QLinearMatMul" -> listOf(product(call.shape(0), call.shape(3)))
    "Range" -> listOf(range(call))
    "Reshape" -> listOf(reshaped(call.shape(0), call.constant(1), call.int("allowzero", 0) == 0L))
    "Resize" -> listOf(resizedBy(call))
    "Shape" -> listOf(listOf(sizesOf(call).size.toLong()))
    "Slice" -> listOf(cut(call))
    "Split" -> split(call)
    "Squeeze" -> listOf(squeezed(call.shape(0), call.axes(1)))
    "Tile" -> listOf(tiled(call.shape(0), call.constant(1)))
    "Transpose" -> listOf(permuted(call.shape(0), call.ints("perm", call.shape(0).indices.reversed().map { it.toLong() })))
    "Unsqueeze" -> listOf(unsqueezed(call.shape(0), call.axes(1) ?: refuse("it has no axes")))
    else -> null
}

private val UNARY = (
    "Abs Cast Ceil Clip Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log LogSoftmax Mish Neg Not " +
        "QuantizeLinear DequantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax Softplus Sqrt Tanh CumSum " +
        "LayerNormalization RMSNormalization InstanceNormalization GroupNormalization BatchNormalization Trilu"
    ).split(' ').toSet()
private val BINARY = (
    "Add Sub Mul Div Pow Max Min Mean Sum And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Mod Where PRelu"
    ).split(' ').toSet()
private val REDUCTIONS =
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare".split(' ').toSet()

/** The input's shape; further outputs are left for training and refused. */
private fun first(call: OnnxCall): List<Sizes> {
    if (call.outputs != 1) refuse("it has outputs beyond the first")
    return listOf(call.shape(0).sizes())
}

private fun gemm(call: OnnxCall): Sizes {
    if (call.shape(0).size != 2 || call.shape(1).size != 2) refuse("it multiplies what are no matrices")
    val left = call.shape(0).let { if (call.int("transA", 0) != 0L) it.reversed() else it }
    val right = call.shape(1).let { if (call.int("transB", 0) != 0L) it.reversed() else it }
    val result = product(left, right)
    if (call.has(2) && broadcast(listOf(call.shape(2), result.map { it.toInt() })) != result) {
        refuse("its bias does not go with its result")
    }
    return result
}

private fun packedProduct(call: OnnxCall): Sizes {
    val (rows, columns, bits) = Triple(call.int("K"), call.int("N"), call.int("bits", 4))
    val block = call.int("block_size")
    val isBlock = block in 16..MAX_SIZE && block and (block - 1) == 0L
    if (bits !in listOf(2L, 4L, 8L) || !isBlock || rows !in 1..MAX_SIZE || columns !in 1..MAX_SIZE) {
        refuse("its block size or bits are none that it has")
    }
    val blocks = (rows + block - 1) / block
    if (blocks > MAX_SIZE / columns) refuse("its packed weights have another size than it states")
    if (elements(call.shape(1)) / (block * bits / 8) != columns * blocks || elements(call.shape(1)) % (block * bits / 8) != 0L) {
        refuse("its packed weights have another size than it states")
    }
    if (elements(call.shape(2)) != columns * blocks || call.shape(0).lastOrNull()?.toLong() != rows) {
        refuse("its scales or its input have another size than it states")
    }
    val zeros = listOf(columns * blocks, columns * ((blocks * bits + 7) / 8))
    if (call.has(3) && elements(call.shape(3)) !in zeros) refuse("its zero points have another size than it states")
    if (call.has(4)) refuse("it has indices of groups")
    return call.shape(0).sizes().dropLast(1) + columns
}

private fun convolved(call: OnnxCall, kernelAt: Int): Sizes {
    val (image, kernel, groups) = Triple(call.shape(0), call.shape(kernelAt), call.int("group", 1))
    val isFit = image.size >= 3 && kernel.size == image.size && groups in 1..MAX_SIZE && kernel[0] % groups == 0L &&
        image[1].toLong() == kernel[1] * groups
    if (!isFit) refuse("it has no convolution of $image with $kernel in $groups groups")
    val stated = call.ints("kernel_shape", kernel.drop(2).sizes())
    if (stated != kernel.drop(2).sizes()) refuse("its kernel has another shape than it states")
    return listOf(image[0].toLong(), kernel[0].toLong()) + windows(call, image.drop(2), stated)
}

private fun pooled(call: OnnxCall): List<Sizes> {
    val (image, kernel) = call.shape(0) to call.ints("kernel_shape")
    if (image.size < 3 || kernel.size != image.size - 2 || call.int("ceil_mode", 0) != 0L) {
        refuse("it has no windows of ${kernel.take(9)} over $image")
    }
    return List(call.outputs) { image.take(2).sizes() + windows(call, image.drop(2), kernel) }
}

private fun windows(call: OnnxCall, sizes: Shape, kernel: Sizes): Sizes {
    val rank = sizes.size
    val (strides, dilations) = call.ints("strides", List(rank) { 1 }) to call.ints("dilations", List(rank) { 1 })
    val pads = call.ints("pads", List(2 * rank) { 0 })
    val mode = call.attributes["auto_pad"] ?: "NOTSET"
    if (mode !in listOf("NOTSET", "VALID") || strides.size != rank || dilations.size != rank || pads.size != 2 * rank) {
        refuse("its strides, dilations or paddings do not go with its input")
    }
    return sizes.indices.map { window(sizes[it], kernel[it], strides[it], dilations[it], pads[it], pads[rank + it]) }
}

private fun flattened(call: OnnxCall): Sizes {
    val shape = call.shape(0)
    val axis = call.int("axis", 1)
    if (axis !in -shape.size..shape.size) refuse("there is no axis $axis in ${shape.size}")
    val at = (if (axis < 0) axis + shape.size else axis).toInt()
    return listOf(elements(shape.take(at)), elements(shape.drop(at)))
}

private fun split(call: OnnxCall): List<Sizes> {
    val (shape, count) = call.shape(0) to call.outputs
    val axis = axisOf(call.int("axis", 0), shape.size)
    val sizes = when {
        call.has(1) -> call.constant(1)
        "split" in call.attributes -> call.ints("split")
        call.symbolic -> refuse("it has no sizes, so that the last part may grow while the length falls")
        else -> {
            val each = (shape[axis].toLong() + count - 1) / maxOf(count, 1)
            List(count) { minOf(each, shape[axis] - each * it) }
        }
    }
    if (sizes.size != count || sizes.any { it !in 0..MAX_SIZE } || sizes.sum() != shape[axis].toLong()) {
        refuse("${shape[axis]} elements cannot be split into ${sizes.take(9)}")
    }
    return sizes.map { withAxis(shape.sizes(), axis, it) }
}

private fun cut(call: OnnxCall): Sizes {
    val shape = call.shape(0)
    val (starts, ends) = call.constant(1) to call.constant(2, mayVary = true)
    val axes = axesOf(if (call.has(3)) call.constant(3) else starts.indices.map { it.toLong() }, shape.size)
    val steps = if (call.has(4)) call.constant(4) else List(starts.size) { 1L }
    if (setOf(starts.size, ends.size, axes.size, steps.size).size != 1) {
        refuse("its starts, ends, axes and steps are not as many")
    }
    if (call.symbolic && (starts.any { it < 0 } || steps.any { it < 1 })) {
        refuse("it counts from the end, so that it may grow while the length falls")
    }
    val sizes = shape.sizes().toMutableList()
    axes.forEachIndexed { place, axis -> sizes[axis] = sliced(shape[axis], starts[place], ends[place], steps[place]) }
    return sizes
}

/** What `Shape` gives: all sizes of its operand, or those from `start` to before `end`. */
internal fun sizesOf(call: OnnxCall): List<Long> {
    val sizes = call.shape(0).sizes()
    fun place(name: String, default: Int) =
        call.int(name, default.toLong()).let { if (it < 0) it + sizes.size else it }.coerceIn(0, sizes.size.toLong()).toInt()
    val (start, end) = place("start", 0) to place("end", sizes.size)
    return if (start < end) sizes.subList(start, end) else emptyList()
}

private fun gathered(call: OnnxCall): Sizes {
    val (table, indices) = call.shape(0) to call.shape(1)
    val axis = axisOf(call.int("axis", 0), table.size)
    checkIndices(call, table[axis])
    return table.sizes().let { it.take(axis) + indices.sizes() + it.drop(axis + 1) }
}

/** Constant indices lie in their axis; those that are computed an engine checks itself. */
private fun checkIndices(call: OnnxCall, size: Int) {
    val outside = call.inputs[1]?.numbers?.invoke()?.firstOrNull { it !in -size until size } ?: return
    refuse("it gathers number $outside of $size")
}

private fun gatheredByElement(call: OnnxCall): Sizes {
    val (table, indices) = call.shape(0) to call.shape(1)
    val axis = axisOf(call.int("axis", 0), table.size)
    if (indices.size != table.size) refuse("it gathers by $indices from $table")
    checkIndices(call, table[axis])
    return indices.sizes()
}

private fun gatheredByPoints(call: OnnxCall): Sizes {
    val (table, indices, batch) = Triple(call.shape(0), call.shape(1), call.int("batch_dims", 0))
    val depth = indices.lastOrNull() ?: 0
    val isFit = batch in 0 until minOf(table.size, maxOf(indices.size, 1)) && depth in 1..table.size - batch.toInt()
    if (!isFit) refuse("it gathers by $indices from $table")
    return indices.sizes().dropLast(1) + table.sizes().drop(batch.toInt() + depth)
}

private fun paddedBy(call: OnnxCall): Sizes {
    val shape = call.shape(0)
    val pads = if (call.has(1)) call.constant(1) else call.ints("pads")
    val axes = axesOf(if (call.has(3)) call.constant(3) else shape.indices.map { it.toLong() }, shape.size)
    if (pads.size != 2 * axes.size) refuse("it pads $shape by ${pads.take(9)}")
    val pairs = MutableList(shape.size) { 0L to 0L }
    axes.forEachIndexed { place, axis -> pairs[axis] = pads[place] to pads[axes.size + place] }
    return padded(shape, pairs)
}

/** To sizes; scales would have to be read as floats, and a converter can write either. */
private fun resizedBy(call: OnnxCall): Sizes {
    val (shape, sizes) = call.shape(0) to call.constant(3)
    val policy = if ("keep_aspect_ratio_policy" in call.attributes) call.attributes["keep_aspect_ratio_policy"] else "stretch"
    if (call.has(1) || call.has(2) || policy != "stretch") refuse("it has a region, scales or a policy: expected sizes")
    if (call.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize") refuse("it crops")
    val axes = call.ints("axes", shape.indices.map { it.toLong() }).map { axisOf(it, shape.size) }
    val isFit = sizes.size == axes.size && axes.indices.all { axes[it] > 1 || sizes[it] == shape[axes[it]].toLong() }
    if (!isFit) refuse("$shape cannot be resized to ${sizes.take(9)}: expected rows and columns")
    return resized(shape, axes, sizes)
}

private fun wanted(sizes: List<Long>): Sizes {
    if (sizes.any { it !in 0..MAX_SIZE }) refuse("it is to become ${sizes.take(9)}")
    return sizes
}

private fun range(call: OnnxCall): Sizes {
    val (begin, end, step) = (0..2).map { call.constant(it).singleOrNull() ?: refuse("a range's bound is no number") }
    val bounds = Int.MIN_VALUE.toLong()..MAX_SIZE
    if (step == 0L || listOf(begin, end, step).any { it !in bounds }) refuse("a range from $begin to $end by $step")
    return listOf(maxOf(0L, -(begin - end).floorDiv(step)))
}

private fun reducedBy(call: OnnxCall): Sizes {
    val shape = call.shape(0)
    val axes = call.axes(1)
    val isAll = axes == null || (axes.isEmpty() && call.int("noop_with_empty_axes", 0) == 0L)
    return reduced(shape, if (isAll) shape.indices.map { it.toLong() } else axes.orEmpty(), call.int("keepdims", 1) != 0L)
}

/** The results' numbers are those of the first operand. */
internal val ONNX_MOVES = setOf(
    "Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
)

/** Their second operand numbers the rows of the first. */
internal val ONNX_GATHERS = setOf("Gather", "GatherElements", "GatherND")

/** How many rows the table of a gather has; its rule has seen that the call is sound. */
internal fun indexedRows(operator: String, call: OnnxCall): Int {
    val table = call.shape(0)
    if (operator != "GatherND") return table[axisOf(call.int("axis", 0), table.size)]
    return table.drop(call.int("batch_dims", 0).toInt()).take(call.shape(1).last()).min()
}
