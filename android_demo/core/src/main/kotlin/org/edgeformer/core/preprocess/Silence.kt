package org.edgeformer.core.preprocess

import org.edgeformer.core.InputError
import kotlin.math.floor
import kotlin.math.log10
import kotlin.math.pow

private const val FRAME_SECONDS = 0.02

/**
 * Below every microphone's noise and above that of 16-bit samples: what stays below is silence, unless it stands out from
 * its own floor, as faint speech does.
 */
private const val SILENT_DBFS = -65.0

/** Two steps of 16-bit samples: below, nothing was recorded. */
private const val FAINTEST_DBFS = -85.0

/** From the top of speech down to where it is lost; it counts where that is below [SILENT_DBFS]. */
private const val SPEECH_RANGE_DB = 35.0
private const val LEAST_DBFS = -100.0
private const val FLOOR_PERCENTILE = 0.10

/** Between floor and top. Steady noise has 2 to 4 dB by chance, speech has 15 and more even in a loud room. */
private const val MIN_CONTRAST_DB = 10.0

// How far above the floor a pause may be, least and most; between, a quarter of the contrast.
private const val LEAST_MARGIN_DB = 3.0
private const val MOST_MARGIN_DB = 10.0

/** The shortest pause that a cut looks for; where there is none, it takes the quietest stretch of this length. */
private const val CUT_SECONDS = 0.1

/**
 * What [Silence.speechRanges] does with pauses.
 *
 * @property minPauseSeconds shorter pauses stay in their range.
 * @property marginSeconds kept before and behind each range, for soft beginnings and endings.
 */
data class PauseOptions(val minPauseSeconds: Double = 0.6, val marginSeconds: Double = 0.25) {
    init {
        if (marginSeconds < 0 || 2 * marginSeconds > minPauseSeconds) {
            throw InputError("speech ranges: expected 0 <= 2 * marginSeconds <= minPauseSeconds, found $this")
        }
    }
}

/**
 * Where a recording pauses, by its energy alone: cheap, and good enough to cut speech between words and to skip waiting.
 *
 * Levels are in decibels below full scale (dBFS), each of 20 ms with its mean removed, so that an offset is no audio.
 * What counts as a pause is relative to the audio: a little above its own noise floor. Where there is no contrast
 * between floor and top, as in steady noise, nothing is a pause. Ranges are in samples, their end is not part of them.
 */
class Silence(private val sampleRate: Int) {
    private val frame = maxOf(1, halfEven(FRAME_SECONDS * sampleRate))

    /**
     * Whether nothing was recorded: no 20 ms reach -65 dBFS, or -85 and 10 dB above the floor. Steady noise above that is
     * not silence; no samples are.
     */
    fun isSilent(samples: FloatArray, start: Int = 0, end: Int = samples.size): Boolean =
        least(levels(samples, start, end)) == Double.POSITIVE_INFINITY

    /** The parts of a recording between its long pauses; none where it is silent, all in one where there is no contrast. */
    fun speechRanges(samples: FloatArray, options: PauseOptions = PauseOptions()): List<IntRange> {
        val levels = levels(samples, 0, samples.size)
        val least = least(levels)
        val longest = options.minPauseSeconds / FRAME_SECONDS
        val margin = (options.marginSeconds * sampleRate).toInt()
        val found = ArrayList<IntRange>()
        for (index in levels.indices) {
            if (levels[index] < least) continue
            val last = found.lastOrNull()
            if (last == null || index - last.last - 1 >= longest) {
                found.add(index..index)
            } else {
                found[found.size - 1] = last.first..index
            }
        }
        return found.map {
            maxOf(0, it.first * frame - margin) until minOf(samples.size, (it.last + 1) * frame + margin)
        }
    }

    /**
     * Where to cut in two, best between words: the middle of the longest pause between `earliest` and `latest`; where
     * nobody pauses, of the quietest 0.1 s.
     *
     * @return an index from `earliest` to `latest`: samples before it are the first part.
     */
    fun quietestCut(samples: FloatArray, earliest: Int, latest: Int): Int {
        if (!(earliest in 0..latest && latest <= samples.size)) {
            throw InputError("expected 0 <= earliest <= latest <= ${samples.size}, found $earliest and $latest")
        }
        val levels = levels(samples, earliest, latest)
        if (levels.isEmpty()) return (earliest + latest) / 2
        // The threshold is the whole recording's: a range without speech would have none of its own.
        val threshold = threshold(levels(samples, 0, samples.size))
        var (first, end) = longestRun(levels, threshold)
        if ((end - first) * FRAME_SECONDS < CUT_SECONDS) {
            val width = minOf(levels.size, halfEven(CUT_SECONDS / FRAME_SECONDS))
            first = quietest(levels, width)
            end = first + width
        }
        return minOf(latest, earliest + (first + end) * frame / 2)
    }

    /** dBFS of each frame; the last one may be shorter than the others and is padded with its own mean. */
    private fun levels(samples: FloatArray, start: Int, end: Int): DoubleArray {
        val count = (end - start + frame - 1) / frame
        return DoubleArray(count) { index ->
            val first = start + index * frame
            val last = minOf(first + frame, end)
            var sum = 0.0
            for (place in first until last) sum += samples[place]
            val mean = sum / (last - first)
            var power = 0.0
            for (place in first until last) power += (samples[place] - mean) * (samples[place] - mean)
            10 * log10(maxOf(power / frame, 10.0.pow(LEAST_DBFS / 10)))
        }
    }

    /** The level from which on a frame sounds; infinity where nothing was recorded. */
    private fun least(levels: DoubleArray): Double {
        val top = levels.maxOrNull() ?: return Double.POSITIVE_INFINITY
        val threshold = threshold(levels)
        val heard = if (threshold == Double.NEGATIVE_INFINITY) SILENT_DBFS else FAINTEST_DBFS
        return if (top < heard) Double.POSITIVE_INFINITY else maxOf(threshold, minOf(SILENT_DBFS, top - SPEECH_RANGE_DB))
    }

    /** The level below which a frame is a pause; below all levels where the audio has no contrast. */
    private fun threshold(levels: DoubleArray): Double {
        val top = levels.maxOrNull() ?: return Double.NEGATIVE_INFINITY
        val floor = percentile(levels, FLOOR_PERCENTILE)
        if (top - floor < MIN_CONTRAST_DB) return Double.NEGATIVE_INFINITY
        return floor + ((top - floor) / 4).coerceIn(LEAST_MARGIN_DB, MOST_MARGIN_DB)
    }

    /** With linear interpolation between the two values around it. */
    private fun percentile(levels: DoubleArray, fraction: Double): Double {
        val sorted = levels.sortedArray()
        val place = fraction * (sorted.size - 1)
        val below = floor(place).toInt()
        val above = minOf(below + 1, sorted.size - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (place - below)
    }

    /** The longest run of frames below a level, as first and end; of equals, the later: it leaves the shorter rest. */
    private fun longestRun(levels: DoubleArray, threshold: Double): Pair<Int, Int> {
        var best = 0 to 0
        var first = 0
        for (index in levels.indices) {
            if (levels[index] >= threshold) {
                first = index + 1
            } else if (index + 1 - first >= best.second - best.first) {
                best = first to index + 1
            }
        }
        return best
    }

    private fun quietest(levels: DoubleArray, width: Int): Int {
        val energies = DoubleArray(levels.size) { 10.0.pow(levels[it] / 10) }
        return (0..levels.size - width).minByOrNull { first -> (first until first + width).sumOf { energies[it] } } ?: 0
    }
}

/** Rounded, halves to the even integer. */
private fun halfEven(value: Double): Int = Math.rint(value).toInt()
