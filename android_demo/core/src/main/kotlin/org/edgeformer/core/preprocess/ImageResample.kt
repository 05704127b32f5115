package org.edgeformer.core.preprocess

import kotlin.math.abs

/** Fraction bits of a weight: what is left of 32 bits for a sum of 8-bit values, a sign and an overshoot. */
private const val FRACTION_BITS = 22
private const val HALF = 1 shl (FRACTION_BITS - 1)

/** The weights, in fixed point, of the input pixels from `first` on that make one output pixel. */
internal class Weights(val first: Int, val values: IntArray) {
    /** The weighted sum of bytes at `at`, `at + stride`, ..., rounded and clipped to 0..255. */
    fun sum(data: ByteArray, at: Int, stride: Int): Byte {
        var total = HALF
        var next = at
        for (weight in values) {
            total += weight * (data[next].toInt() and 0xFF)
            next += stride
        }
        return (total shr FRACTION_BITS).coerceIn(0, 255).toByte()
    }
}

/**
 * The weights of `count` output pixels from pixel `start` on, where `from` pixels become `to` (BUNDLE.md, step 4).
 *
 * An image that has its size already is left as it is: then each pixel has itself.
 */
internal fun weights(from: Int, to: Int, start: Int, count: Int, filter: Interpolation): List<Weights> {
    if (from == to) return List(count) { Weights(start + it, intArrayOf(1 shl FRACTION_BITS)) }
    val scale = from.toDouble() / to
    val widened = maxOf(scale, 1.0)
    val support = (if (filter == Interpolation.BICUBIC) 2.0 else 1.0) * widened
    return List(count) { index ->
        val center = (start + index + 0.5) * scale
        val first = maxOf((center - support + 0.5).toInt(), 0)
        val end = minOf((center + support + 0.5).toInt(), from)
        val values = DoubleArray(end - first) { weight((it + first - center + 0.5) * (1.0 / widened), filter) }
        val sum = values.sum()
        Weights(first, IntArray(values.size) { fixed(values[it] / sum) })
    }
}

private fun weight(distance: Double, filter: Interpolation): Double {
    val x = abs(distance)
    return when {
        filter == Interpolation.BILINEAR -> maxOf(0.0, 1 - x)
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
        else -> 0.0
    }
}

/** Rounded, halves away from zero. */
private fun fixed(value: Double): Int = (value * (1 shl FRACTION_BITS) + if (value < 0) -0.5 else 0.5).toInt()
