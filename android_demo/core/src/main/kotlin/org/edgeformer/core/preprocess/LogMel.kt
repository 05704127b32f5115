package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.Safetensors
import java.nio.ByteBuffer
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.log10

private const val MEL_FILTERS_TENSOR = "mel_filters"

/**
 * A bundle's filter bank (n_mels, n_fft / 2 + 1).
 *
 * @throws BundleError not safetensors, other tensors, or another shape than the spec's.
 */
internal fun readMelFilters(file: ByteBuffer, spec: AudioPreprocessing): FloatTensor {
    val tensors = Safetensors.read(file, spec.melFilters)
    val filters = tensors[MEL_FILTERS_TENSOR] as? FloatTensor
    val shape = listOf(spec.nMels, spec.nFft / 2 + 1)
    if (filters == null || tensors.size != 1 || filters.shape != shape) {
        throw BundleError("${spec.melFilters}: expected one tensor $MEL_FILTERS_TENSOR, float32 of shape $shape")
    }
    if (!filters.toArray().all { it.isFinite() && it >= 0 }) {
        throw BundleError("${spec.melFilters}: expected finite mel filters of at least 0")
    }
    return filters
}

// Largest magnitudes of a window: below and above the first two it is far from what models were trained on, and from the
// level of a bundle's precomputed silence, and gets the third.
private const val QUIET_PEAK = 0.05f
private const val LOUD_PEAK = 1f
private const val LEVELED_PEAK = 0.5

/** Samples (N) of one window, amplified or attenuated where they are far too quiet or too loud. */
internal fun leveled(samples: FloatArray): FloatArray {
    val peak = samples.maxOfOrNull { abs(it) } ?: 0f
    if (!peak.isFinite() || peak == 0f || peak in QUIET_PEAK..LOUD_PEAK) return samples
    val gain = (LEVELED_PEAK / peak).toFloat()
    return FloatArray(samples.size) { samples[it] * gain }
}

/**
 * Log-mel spectrograms as Whisper was trained on them (Radford et al. 2022, section 2.2). Calls from several threads
 * are safe.
 *
 * The audio is continued with zeros to the whole window, and the window mirrored at both ends by half a frame. Frames
 * of these zeros are constant, so only those that touch the audio are computed.
 *
 * @param filters as [readMelFilters] gives them.
 */
internal class LogMel(private val spec: AudioPreprocessing, filters: FloatTensor) {
    private class Band(val first: Int, val weights: FloatArray)

    private val half = spec.nFft / 2
    private val window = DoubleArray(spec.nFft) { 0.5 - 0.5 * cos(2 * PI * it / spec.nFft) }
    private val bands = filters.toArray().let { values -> List(spec.nMels) { band(values, it) } }

    init {
        if (spec.logFloor < java.lang.Float.MIN_NORMAL || spec.nFft > spec.windowSamples) {
            throw BundleError(
                "expected a log floor that float32 can hold and frames within the window, found ${spec.logFloor} and " +
                    "${spec.nFft} samples",
            )
        }
    }

    /**
     * The first `frames` frames of the window that starts with `samples`: (1, n_mels, frames).
     *
     * @param samples (N) at the spec's rate, N from 0 to a window's.
     * @throws InputError too many samples or frames, NaN, or absurd values.
     */
    fun mel(samples: FloatArray, frames: Int): FloatTensor {
        val windowFrames = spec.windowSamples / spec.hopLength
        if (samples.size > spec.windowSamples) {
            throw InputError("expected at most ${spec.windowSamples} samples, found ${samples.size}: cut the audio")
        }
        if (frames !in 1..windowFrames) throw InputError("expected 1 to $windowFrames frames, found $frames")
        // A frame is centered on its time, so one that starts before the recording's end touches it.
        val sounding = minOf(windowFrames, (samples.size + half + spec.hopLength - 1) / spec.hopLength)
        val log = logPowers(samples, sounding)
        var largest = Float.NEGATIVE_INFINITY
        for (value in log) largest = if (value.isNaN()) value else maxOf(largest, value)
        if (!largest.isFinite()) {
            throw InputError("the samples hold NaN, infinity or absurd values: expected -1 to 1 for full scale")
        }
        val least = maxOf(largest - spec.dynamicRange, log10(spec.logFloor)).toFloat()
        val mel = FloatTensor.direct(listOf(1, spec.nMels, frames))
        for (band in 0 until spec.nMels) {
            for (frame in 0 until frames) {
                val value = if (frame < sounding) maxOf(log[band * sounding + frame], least) else least
                mel.data.put(band * frames + frame, (value + 4) / 4)
            }
        }
        return mel
    }

    /** (n_mels, frames): log10 of the power in each band. */
    private fun logPowers(samples: FloatArray, frames: Int): FloatArray {
        val fft = Fft(spec.nFft)
        val frame = DoubleArray(spec.nFft)
        val power = FloatArray(half + 1)
        val result = FloatArray(spec.nMels * frames)
        val floor = spec.logFloor.toFloat()
        for (time in 0 until frames) {
            val start = time * spec.hopLength - half
            for (index in frame.indices) frame[index] = window[index] * sample(samples, start + index)
            fft.power(frame, power)
            bands.forEachIndexed { band, filter ->
                var sum = 0f
                for (index in filter.weights.indices) sum += filter.weights[index] * power[filter.first + index]
                result[band * frames + time] = log10(if (sum.isNaN()) sum else maxOf(sum, floor))
            }
        }
        return result
    }

    /** The sample at a place of the window, mirrored at its ends. */
    private fun sample(samples: FloatArray, place: Int): Float {
        val last = spec.windowSamples - 1
        val inside = if (place < 0) -place else if (place > last) 2 * last - place else place
        return if (inside < samples.size) samples[inside] else 0f
    }

    /** Filters are nearly empty: only the bins between the first and the last that count are kept. */
    private fun band(filters: FloatArray, band: Int): Band {
        val bins = half + 1
        val used = (0 until bins).filter { filters[band * bins + it] > 0 }
        val first = used.firstOrNull() ?: 0
        val end = (used.lastOrNull() ?: 0) + 1
        return Band(first, filters.copyOfRange(band * bins + first, band * bins + end))
    }
}
