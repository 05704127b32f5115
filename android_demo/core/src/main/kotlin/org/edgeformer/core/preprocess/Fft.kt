package org.edgeformer.core.preprocess

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.sin

/**
 * The discrete Fourier transform of a fixed size, by its prime factors (Cooley and Tukey 1965), in float64. Whisper's
 * frames of 400 samples take some 7,000 products rather than 160,000. Not for several threads at once.
 */
internal class Fft(private val size: Int) {
    private val factors = primeFactors(size)
    private val cosines = DoubleArray(size) { cos(2 * PI * it / size) }
    private val sines = DoubleArray(size) { -sin(2 * PI * it / size) }
    private val real = DoubleArray(size)
    private val imaginary = DoubleArray(size)
    private val partReal = DoubleArray(factors.maxOrNull() ?: 1)
    private val partImaginary = DoubleArray(factors.maxOrNull() ?: 1)

    /** |DFT|^2 of `size` real samples at the frequencies 0 to half of the rate: `power` gets size / 2 + 1 values. */
    fun power(samples: DoubleArray, power: FloatArray) {
        transform(samples, 0, 1, 0, size, 0)
        for (bin in 0..size / 2) {
            power[bin] = (real[bin] * real[bin] + imaginary[bin] * imaginary[bin]).toFloat()
        }
    }

    /** Transforms `count` samples from `from` on, each `stride` behind the last, to places `to` and on. */
    private fun transform(samples: DoubleArray, from: Int, stride: Int, to: Int, count: Int, depth: Int) {
        if (count == 1) {
            real[to] = samples[from]
            imaginary[to] = 0.0
            return
        }
        val parts = factors[depth]
        val length = count / parts
        for (part in 0 until parts) {
            transform(samples, from + part * stride, stride * parts, to + part * length, length, depth + 1)
        }
        for (bin in 0 until length) combine(to + bin, length, parts, bin, stride)
    }

    /** Puts together bin `bin` of each part: they become the bins `bin`, `bin + length`, ... */
    private fun combine(at: Int, length: Int, parts: Int, bin: Int, stride: Int) {
        for (part in 0 until parts) {
            val turn = part * bin * stride % size
            val x = real[at + part * length]
            val y = imaginary[at + part * length]
            partReal[part] = x * cosines[turn] - y * sines[turn]
            partImaginary[part] = x * sines[turn] + y * cosines[turn]
        }
        val step = size / parts
        for (output in 0 until parts) {
            var x = 0.0
            var y = 0.0
            for (part in 0 until parts) {
                val turn = output * part % parts * step
                x += partReal[part] * cosines[turn] - partImaginary[part] * sines[turn]
                y += partReal[part] * sines[turn] + partImaginary[part] * cosines[turn]
            }
            real[at + output * length] = x
            imaginary[at + output * length] = y
        }
    }

    private fun primeFactors(number: Int): IntArray {
        val found = ArrayList<Int>()
        var rest = number
        var factor = 2
        while (rest > 1) {
            while (rest % factor == 0) {
                found.add(factor)
                rest /= factor
            }
            factor++
        }
        return found.toIntArray()
    }
}
