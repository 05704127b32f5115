package org.edgeformer.core

import kotlin.math.abs
import kotlin.math.sqrt

/**
 * One case's result against its reference; null: not comparable (another shape, NaN, or no result at all).
 *
 * @property reason what the engine said where it gave no result, or what is known to be wrong.
 */
internal class Comparison(
    val maxAbs: Double?,
    val cosine: Double?,
    val tolerance: Double,
    val ok: Boolean,
    val reason: String? = null,
) {
    /** Larger is worse; whatever is not ok is worse than whatever is. */
    val badness: Double
        get() {
            val ratio = when {
                maxAbs == null -> Double.POSITIVE_INFINITY
                tolerance == 0.0 -> if (maxAbs == 0.0) 0.0 else Double.POSITIVE_INFINITY
                else -> maxAbs / tolerance
            }
            return if (ok) minOf(ratio, 1.0) else maxOf(ratio, 2.0)
        }

    companion object {
        /** What could not be compared. */
        fun failed(tolerance: Double, error: EngineError? = null) =
            Comparison(null, null, tolerance, ok = false, error?.message)

        /** Compares two arrays; NaN, infinity or another size are not comparable and not ok. */
        fun of(found: DoubleArray, reference: DoubleArray, tolerance: Double): Comparison {
            if (found.size != reference.size || !found.all { it.isFinite() }) return failed(tolerance)
            var (most, dot, a, b) = listOf(0.0, 0.0, 0.0, 0.0)
            for (index in found.indices) {
                most = maxOf(most, abs(found[index] - reference[index]))
                dot += found[index] * reference[index]
                a += found[index] * found[index]
                b += reference[index] * reference[index]
            }
            val norms = sqrt(a) * sqrt(b)
            val cosine = if (norms > 0) (dot / norms).coerceIn(-1.0, 1.0) else null
            return Comparison(most, cosine, tolerance, most <= tolerance)
        }

        /** Compares two tensors; another shape is not comparable. */
        fun of(found: Tensor, reference: Tensor, tolerance: Double): Comparison =
            if (found.shape != reference.shape) failed(tolerance) else of(doubles(found), doubles(reference), tolerance)

        /** The worst comparison, with the smallest cosine of all of them. */
        fun worst(comparisons: List<Comparison>): Comparison {
            val worst = comparisons.maxByOrNull { it.badness } ?: error("there is something to compare")
            val cosine = comparisons.mapNotNull { it.cosine }.minOrNull()
            return Comparison(worst.maxAbs, cosine, worst.tolerance, worst.ok, worst.reason)
        }
    }
}

/** Of an output's scale: a reference whose values are all below has no direction that a format could keep. */
private const val SMALL = 0.1

/**
 * For each output's name its largest absolute value over all cases: what a tolerance is a fraction of. Buckets of one
 * model share it. An input without meaning may have logits near 0, of which no format keeps a fraction.
 */
internal class Scales(outputs: List<Map<String, DoubleArray>>) {
    private val largest = HashMap<String, Double>().apply {
        for (values in outputs) values.forEach { (name, each) -> put(name, maxOf(get(name) ?: 0.0, largest(each))) }
    }

    /** What [tolerance], a fraction, is of an output. */
    fun limit(name: String, tolerance: Double): Double = tolerance * largest.getValue(name)

    /** Compares within a fraction of the output's scale; beside a small reference a cosine says nothing: null. */
    fun compare(name: String, found: DoubleArray, reference: DoubleArray, tolerance: Double): Comparison {
        val comparison = Comparison.of(found, reference, limit(name, tolerance))
        if (largest(reference) >= limit(name, SMALL)) return comparison
        return Comparison(comparison.maxAbs, null, comparison.tolerance, comparison.ok, comparison.reason)
    }
}

/** The largest absolute value. */
internal fun largest(values: DoubleArray): Double = values.fold(0.0) { most, value -> maxOf(most, abs(value)) }

internal fun doubles(tensor: Tensor): DoubleArray = when (tensor) {
    is FloatTensor -> tensor.toArray().let { values -> DoubleArray(values.size) { values[it].toDouble() } }
    is IntTensor -> tensor.toArray().let { values -> DoubleArray(values.size) { values[it].toDouble() } }
    is ByteTensor -> DoubleArray(tensor.size) { (tensor.data[it].toInt() and 0xFF).toDouble() }
}
