package org.edgeformer.core.models

// What operators make of shapes, alike in every format. Sizes of results are checked by whoever asks, as Longs.

internal typealias Sizes = List<Long>

internal fun Shape.sizes(): Sizes = map { it.toLong() }

/** As numpy broadcasts. */
internal fun broadcast(shapes: List<Shape>): Sizes {
    val rank = shapes.maxOfOrNull { it.size } ?: 0
    return (0 until rank).map { axis ->
        val sizes = shapes.map { it.getOrElse(axis - rank + it.size) { 1 } }.filter { it != 1 }.distinct()
        if (sizes.size > 1) refuse("the shapes ${shapes.joinToString()} do not go together")
        sizes.firstOrNull()?.toLong() ?: 1L
    }
}

/** An axis from 0 on. */
internal fun axisOf(axis: Long, rank: Int): Int {
    if (axis !in -rank until rank) refuse("there is no axis $axis in $rank")
    return (if (axis < 0) axis + rank else axis).toInt()
}

/** Several axes, each once. */
internal fun axesOf(axes: List<Long>, rank: Int): List<Int> {
    val found = axes.map { axisOf(it, rank) }
    if (found.toSet().size != found.size) refuse("an axis occurs twice")
    return found
}

/** A shape with an axis of another size, or, of null, without it. */
internal fun withAxis(shape: Sizes, axis: Int, size: Long?): Sizes =
    shape.take(axis) + listOfNotNull(size) + shape.drop(axis + 1)

/** A transpose's. */
internal fun permuted(shape: Shape, order: List<Long>): Sizes {
    if (order.sorted() != shape.indices.map { it.toLong() }) refuse("${order.take(9)} is no order of ${shape.size} axes")
    return order.map { shape[it.toInt()].toLong() }
}

/** A product's, batches broadcast, vectors as numpy has them. */
internal fun product(left: Shape, right: Shape): Sizes {
    if (left.isEmpty() || right.isEmpty()) refuse("a product of a scalar")
    val first = if (left.size == 1) listOf(1) + left else left
    val second = if (right.size == 1) right + 1 else right
    if (first.last() != second[second.size - 2]) refuse("there is no product of $left and $right")
    val rows = if (left.size == 1) emptyList() else listOf(first[first.size - 2].toLong())
    val columns = if (right.size == 1) emptyList() else listOf(second.last().toLong())
    return broadcast(listOf(first.dropLast(2), second.dropLast(2))) + rows + columns
}

/** Of one or more shapes that are alike but for an axis. */
internal fun concatenated(shapes: List<Shape>, axis: Long): Sizes {
    val first = shapes.firstOrNull() ?: refuse("nothing is concatenated")
    val along = axisOf(axis, first.size)
    for (shape in shapes) {
        val isAlike = shape.size == first.size && shape.indices.all { it == along || shape[it] == first[it] }
        if (!isAlike) refuse("the shapes $first and $shape cannot be concatenated")
    }
    return withAxis(first.sizes(), along, shapes.fold(0L) { sum, shape -> sum + shape[along] })
}

/** A mean's or sum's. */
internal fun reduced(shape: Shape, axes: List<Long>, keep: Boolean): Sizes {
    val gone = axesOf(axes, shape.size).toSet()
    return shape.indices.mapNotNull { if (it !in gone) shape[it].toLong() else if (keep) 1L else null }
}

/** A reshape's: -1 takes what is left, and where [zeroCopies], 0 the size of the same axis. */
internal fun reshaped(shape: Shape, wanted: List<Long>, zeroCopies: Boolean): Sizes {
    fun no(): Nothing = refuse("$shape cannot become ${wanted.take(9)}")
    if (wanted.size > 16 || wanted.any { it !in -1..MAX_SIZE.toLong() } || wanted.count { it == -1L } > 1) no()
    val sizes = wanted.mapIndexed { axis, size ->
        if (zeroCopies && size == 0L) shape.getOrElse(axis) { no() }.toLong() else size
    }
    val all = elements(shape)
    val rest = elements(sizes.filter { it != -1L }.map { it.toInt() })
    if (-1L in sizes) {
        if (rest == 0L || all % rest != 0L) no()
        return sizes.map { if (it == -1L) all / rest else it }
    }
    return if (rest == all) sizes else no()
}

/** Without the axes, of size 1, or without all such. */
internal fun squeezed(shape: Shape, axes: List<Long>?): Sizes {
    if (axes == null) return shape.filter { it != 1 }.sizes()
    val gone = axesOf(axes, shape.size).toSet()
    if (gone.any { shape[it] != 1 }) refuse("$shape cannot be squeezed")
    return shape.filterIndexed { axis, _ -> axis !in gone }.sizes()
}

/** With axes of size 1, numbered as in the result. */
internal fun unsqueezed(shape: Shape, axes: List<Long>): Sizes {
    val rank = shape.size + axes.size
    val gone = axesOf(axes, rank).toSet()
    val rest = shape.iterator()
    return (0 until rank).map { if (it in gone) 1L else rest.next().toLong() }
}

/** A pad's, by (before, after) of each axis. */
internal fun padded(shape: Shape, pairs: List<Pair<Long, Long>>): Sizes {
    val isFit = pairs.size == shape.size && pairs.all { (a, b) -> a in 0..MAX_SIZE && b in 0..MAX_SIZE }
    if (!isFit) refuse("$shape cannot be padded by ${pairs.take(9)}")
    return shape.mapIndexed { axis, size -> pairs[axis].first + size + pairs[axis].second }
}

/** Some axes of an image of four at other sizes, none of them empty. */
internal fun resized(shape: Shape, axes: List<Int>, sizes: List<Long>): Sizes {
    val isFit = shape.size == 4 && sizes.size == axes.size && shape.all { it > 0 } && sizes.all { it in 1..MAX_SIZE }
    if (!isFit) refuse("$shape cannot be resized to ${sizes.take(9)}")
    return shape.mapIndexed { axis, size -> sizes.getOrElse(axes.indexOf(axis)) { size.toLong() } }
}

/** A tile's. */
internal fun tiled(shape: Shape, repeats: List<Long>): Sizes {
    if (repeats.size != shape.size || repeats.any { it !in 0..MAX_SIZE }) {
        refuse("$shape cannot be repeated ${repeats.take(9)} times")
    }
    return shape.mapIndexed { axis, size -> size * repeats[axis] }
}

/**
 * How many of an axis's elements a slice takes; negative starts and ends count from the axis's end.
 *
 * An end of 2^31 - 1 and more, or for steps backwards of less than -2^31 + 2, is the axis's own. What reaches outside
 * otherwise is refused, as engines clamp it in ways of their own.
 */
internal fun sliced(size: Int, begin: Long, end: Long, step: Long): Long {
    if (step == 0L || step == Long.MIN_VALUE) refuse("a slice has the step $step")
    var first = if (begin < 0) begin + size else begin
    var last = if (end < 0) end + size else end
    val isFit: Boolean
    if (step > 0) {
        if (end >= MAX_SIZE) last = size.toLong()
        isFit = first in 0..size && last in 0..size
    } else {
        if (begin >= MAX_SIZE) first = size - 1L
        if (end <= 1 - MAX_SIZE) last = -1
        isFit = first in 0 until maxOf(size, 1) && last in -1 until size
    }
    if (!isFit) refuse("a slice from $begin to $end lies outside an axis of $size")
    return maxOf(0L, -(first - last).floorDiv(step))
}

/** How many windows a convolution or pooling has along an axis. */
internal fun window(size: Int, kernel: Long, stride: Long, dilation: Long, before: Long, after: Long): Long {
    val isFit = listOf(kernel, stride, dilation).all { it in 1..MAX_SIZE } && listOf(before, after).all { it in 0..MAX_SIZE }
    if (!isFit) refuse("a window of $kernel with stride $stride and dilation $dilation")
    val room = size + before + after - (kernel - 1) * dilation - 1
    if (room < 0) refuse("a window of $kernel does not fit $size")
    return room / stride + 1
}
