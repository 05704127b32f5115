package org.edgeformer.core.preprocess

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.sin
import kotlin.math.sqrt

/** Zero crossings of the kernel on each side: with the window's shape, a stop band 100 dB down. */
private const val CROSSINGS = 74
private const val KAISER_BETA = 10.06

/** The middle of the transition band, as a fraction of the lower rate's half: from .913 to 1. */
private const val CUTOFF = 0.9565

/** Entries of the kernel for each zero crossing; between them it is interpolated, with an error below 2e-6. */
private const val ENTRIES = 512

/**
 * Audio at another rate, block by block: a sinc under a Kaiser window (Smith, "Digital Audio Resampling"), whose band is
 * that of soxr's high quality. Its delay is none; before and behind the audio there is silence.
 */
internal class Resampler(private val from: Int, private val to: Int) {
    /** Entries of the kernel from one sample of the input to the next: it widens where the rate falls. */
    private val scale = minOf(1.0, to.toDouble() / from)
    private val step = scale * ENTRIES
    private val reach = (CROSSINGS / scale).toLong() + 1

    private var samples = FloatArray(0)
    private var start = 0L
    private var made = 0L

    /** The samples that `more` completes; with `isLast` all that are left. */
    fun next(more: FloatArray, isLast: Boolean): FloatArray {
        samples += more
        val end = start + samples.size
        val ready = if (isLast) (2 * end * to + from) / (2 * from) else maxOf(made, (end - reach) * to / from)
        val found = FloatArray((ready - made).toInt()) { sample(made + it) }
        made = ready
        val first = (made * from / to - reach).coerceIn(start, end)
        samples = samples.copyOfRange((first - start).toInt(), samples.size)
        start = first
        return found
    }

    private fun sample(index: Long): Float {
        val center = index * from / to - start
        val fraction = (index * from % to).toDouble() / to
        var sum = 0.0
        var at = fraction * step
        var next = center.toInt()
        while (at < LAST && next >= 0) {
            if (next < samples.size) sum += samples[next] * weight(at)
            at += step
            next--
        }
        at = (1 - fraction) * step
        next = center.toInt() + 1
        while (at < LAST && next < samples.size) {
            sum += samples[next] * weight(at)
            at += step
            next++
        }
        return (sum * scale).toFloat()
    }

    private fun weight(at: Double): Double {
        val entry = at.toInt()
        return KERNEL[entry] + (KERNEL[entry + 1] - KERNEL[entry]) * (at - entry)
    }

    private companion object {
        const val LAST = (CROSSINGS * ENTRIES).toDouble()

        /** One side of the kernel. */
        val KERNEL = DoubleArray(CROSSINGS * ENTRIES + 2) { entry ->
            val x = entry.toDouble() / ENTRIES
            val inside = 1 - (x / CROSSINGS) * (x / CROSSINGS)
            if (inside <= 0) 0.0 else CUTOFF * sinc(CUTOFF * x) * bessel(KAISER_BETA * sqrt(inside)) / bessel(KAISER_BETA)
        }

        fun sinc(x: Double) = if (abs(x) < 1e-9) 1.0 else sin(PI * x) / (PI * x)

        /** The modified Bessel function of order 0, by its series. */
        fun bessel(x: Double): Double {
            var (sum, term, n) = Triple(1.0, 1.0, 1)
            while (term > sum * 1e-17) {
                term *= (x / 2 / n) * (x / 2 / n)
                sum += term
                n++
            }
            return sum
        }
    }
}
