package org.edgeformer.core.models

import org.edgeformer.core.shorten

internal const val MAX_SIZE = Int.MAX_VALUE
private const val MAX_RANK = 8

/** Of a tensor that is computed; constants are bounded by the file that holds their bytes. */
private const val MAX_ELEMENTS = 1L shl 26

/** Elements of a constant that is looked at: shapes, axes and the like have a few. */
internal const val MAX_STEERING = 4096

internal typealias Shape = List<Int>

/** A model file breaks a rule of BUNDLE.md, "Model files"; whoever knows the file's name makes a BundleError of it. */
internal class Broken(message: String) : Exception(message)

internal fun refuse(message: String): Nothing = throw Broken(message)

/** The number of a shape's elements; of more than a Long counts, that one. */
internal fun elements(shape: Shape): Long {
    if (0 in shape) return 0
    return shape.fold(1L) { product, size -> if (product > Long.MAX_VALUE / size) return Long.MAX_VALUE else product * size }
}

/** How many bytes so many elements take; nothing is as many as a Long counts. */
internal fun bytesOf(shape: Shape, bits: Int): Long {
    val count = elements(shape)
    return if (count > Long.MAX_VALUE / 64) Long.MAX_VALUE else (count * bits + 7) / 8
}

/** The shape, if it is static and within the limits. */
internal fun checkShape(sizes: List<Long>, what: String, computed: Boolean = true): Shape {
    if (sizes.size > MAX_RANK) refuse("$what has ${sizes.size} axes, at most $MAX_RANK are allowed")
    if (sizes.any { it !in 0..MAX_SIZE }) {
        refuse("$what has the shape ${shorten(sizes)}: expected sizes of 0 to 2^31 - 1")
    }
    val shape = sizes.map { it.toInt() }
    if (computed && elements(shape) > MAX_ELEMENTS) {
        refuse("$what has the shape ${shorten(sizes)}: expected at most 2^26 elements")
    }
    return shape
}

/** Refuses bytes that do not lie before `end`. */
internal fun checkRange(offset: Long, size: Long, end: Long, what: String) {
    if (offset !in 0..end || size !in 0..end - offset) refuse("$what lies at $offset with $size bytes, of $end")
}
