package org.edgeformer.core.pipelines

import org.edgeformer.core.preprocess.PauseOptions
import org.edgeformer.core.preprocess.Silence

/** A pause that no window has inside: transcribing it costs time, and it is where models make up text. */
private val SKIPPED_PAUSE = PauseOptions(minPauseSeconds = 3.0, marginSeconds = 0.5)

/** Audio that a window left over is transcribed again if there is so much of it, and so much before it. */
private const val SHORTEST_RETRY_SECONDS = 1.0

/** Audio that has arrived and is not yet transcribed. */
internal class AudioBuffer {
    /** The sample of the whole recording at which the buffer starts. */
    var start = 0
        private set

    var samples = FloatArray(0)
        private set

    /** The sample of the whole recording at which the buffer ends. */
    val end: Int get() = start + samples.size

    fun append(more: FloatArray) {
        samples += more
    }

    /** Forgets the first samples. */
    fun drop(count: Int) {
        samples = samples.copyOfRange(count, samples.size)
        start += count
    }
}

/** The first samples of a buffer, up to `end`: to be transcribed, or to be skipped. */
internal class Window(val end: Int, val hasSpeech: Boolean)

/**
 * What to do with a buffer next; it is to be filled again before the next call.
 *
 * Audio behind the window is only needed to tell whether there is more: a buffer of more than `longest` samples is cut
 * in the best pause of its second half.
 *
 * @param samples (N), N at least 1: all that is left, or more than `longest` samples of it.
 */
internal fun nextWindow(samples: FloatArray, longest: Int, sampleRate: Int, silence: Silence): Window {
    val ranges = silence.speechRanges(samples, SKIPPED_PAUSE)
    val first = ranges.firstOrNull() ?: return Window(samples.size, hasSpeech = false)
    val pause = Math.rint(SKIPPED_PAUSE.minPauseSeconds * sampleRate).toInt()
    if (first.first >= pause) return Window(first.first, hasSpeech = false)
    var end = first.last + 1
    if (ranges.size == 1 && samples.size - end < pause) end = samples.size
    if (end > longest) end = silence.quietestCut(samples.copyOf(longest), longest / 2, longest)
    return Window(end, hasSpeech = true)
}

/** Whether what a window left over from sample `done` on is to be transcribed again. */
internal fun isWorthARetry(samples: FloatArray, done: Int, sampleRate: Int, silence: Silence): Boolean {
    val shortest = SHORTEST_RETRY_SECONDS * sampleRate
    return done >= shortest && samples.size - done >= shortest && !silence.isSilent(samples, done)
}
