package org.edgeformer.core.preprocess

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.sin

/**
 * The power spectrum of frames of one even size, in float64: a transform of half the size whose real and imaginary
 * parts are the even and the odd samples, by the size's factors (Cooley and Tukey 1965) in Stockham's order, which
 * needs no sorting. Not for several threads at once.
 */
internal class Fft(private val size: Int) {
    /** `radix` parts of `length` each become one, `stride` of them side by side. */
    private class Stage(val radix: Int, val length: Int, val stride: Int) {
        private val whole = radix * length

        /** exp(-2 pi i j k / radix), j by k. */
        val turns = roots(radix * radix) { (it / radix) * (it % radix) % radix to radix }

        /** exp(-2 pi i j p / whole), p by j. */
        val twiddles = roots(whole) { (it / radix) * (it % radix) to whole }
    }

    private val half = size / 2
    private val stages: List<Stage>
    private val unpacking = roots(half + 1) { it to size }
    private var real = DoubleArray(half)
    private var imaginary = DoubleArray(half)
    private var nextReal = DoubleArray(half)
    private var nextImaginary = DoubleArray(half)

    init {
        require(size % 2 == 0) { "frames have an even size" }
        var stride = 1
        stages = factors(half).map { radix ->
            Stage(radix, half / stride / radix, stride).also { stride *= radix }
        }
    }

    /** |DFT|^2 of `size` real samples at the frequencies 0 to half of the rate: `power` gets size / 2 + 1 values. */
    fun power(samples: DoubleArray, power: FloatArray) {
        for (index in 0 until half) {
            real[index] = samples[2 * index]
            imaginary[index] = samples[2 * index + 1]
        }
        stages.forEach(::run)
        for (bin in 0..half) {
            val a = bin % half
            val b = (half - bin) % half
            // The even samples' spectrum, and the odd ones'.
            val evenReal = (real[a] + real[b]) / 2
            val evenImaginary = (imaginary[a] - imaginary[b]) / 2
            val oddReal = (imaginary[a] + imaginary[b]) / 2
            val oddImaginary = (real[b] - real[a]) / 2
            val x = unpacking.first[bin]
            val y = unpacking.second[bin]
            val sumReal = evenReal + oddReal * x - oddImaginary * y
            val sumImaginary = evenImaginary + oddReal * y + oddImaginary * x
            power[bin] = (sumReal * sumReal + sumImaginary * sumImaginary).toFloat()
        }
    }

    private fun run(stage: Stage) {
        val (turnReal, turnImaginary) = stage.turns
        val (twiddleReal, twiddleImaginary) = stage.twiddles
        for (place in 0 until stage.length) {
            for (part in 0 until stage.radix) {
                val x = twiddleReal[place * stage.radix + part]
                val y = twiddleImaginary[place * stage.radix + part]
                for (lane in 0 until stage.stride) {
                    var sumReal = 0.0
                    var sumImaginary = 0.0
                    var from = lane + stage.stride * place
                    for (turn in part * stage.radix until (part + 1) * stage.radix) {
                        sumReal += real[from] * turnReal[turn] - imaginary[from] * turnImaginary[turn]
                        sumImaginary += real[from] * turnImaginary[turn] + imaginary[from] * turnReal[turn]
                        from += stage.stride * stage.length
                    }
                    val to = lane + stage.stride * (stage.radix * place + part)
                    nextReal[to] = sumReal * x - sumImaginary * y
                    nextImaginary[to] = sumReal * y + sumImaginary * x
                }
            }
        }
        real = nextReal.also { nextReal = real }
        imaginary = nextImaginary.also { nextImaginary = imaginary }
    }
}

/** `count` roots of unity, exp(-2 pi i n / d) with (n, d) of each index, as real and imaginary parts. */
private fun roots(count: Int, fraction: (Int) -> Pair<Int, Int>): Pair<DoubleArray, DoubleArray> {
    val angles = DoubleArray(count) { index -> fraction(index).let { (part, whole) -> -2 * PI * part / whole } }
    return DoubleArray(count) { cos(angles[it]) } to DoubleArray(count) { sin(angles[it]) }
}

/** Prime factors, with fours in place of pairs of twos. */
private fun factors(number: Int): List<Int> {
    val found = ArrayList<Int>()
    var rest = number
    for (factor in listOf(4, 2) + (3..number step 2)) {
        while (rest % factor == 0 && rest > 1) {
            found.add(factor)
            rest /= factor
        }
    }
    return found
}
