package org.edgeformer.core.decoding

import org.edgeformer.core.Transcription

/** A segment of a window: seconds from the window's begin, and where its text stands among the window's tokens. */
internal class Span(val start: Double, val end: Double, val entries: List<Int>)

/**
 * A window's segments, whose times never fall.
 *
 * @property resume in seconds, from where on the model left audio for the next window, since it saw no end of what
 *   starts there; null: the window is done.
 */
internal class Spans(val segments: List<Span>, val resume: Double?)

/**
 * Segments of tokens, text and timestamps, in a window of so many seconds.
 *
 * Text without a timestamp before it starts where the last segment ended; text without one behind it lasts until the
 * window ends. Timestamps behind the window's end are moved there.
 */
internal fun splitAtTimestamps(tokens: List<Int>, spec: Transcription, seconds: Double): Spans {
    val first = spec.tokens.firstTimestamp
    val segments = ArrayList<Span>()
    var entries = ArrayList<Int>()
    var start = 0.0
    tokens.forEachIndexed { index, token ->
        if (token < first) {
            entries.add(index)
        } else {
            val time = minOf(seconds, (token - first) * spec.secondsPerTimestamp)
            if (entries.isNotEmpty()) segments.add(Span(start, maxOf(start, time), entries))
            entries = ArrayList()
            start = maxOf(start, time)
        }
    }
    if (entries.isNotEmpty()) segments.add(Span(start, maxOf(start, seconds), entries))
    val endsInPair = tokens.size >= 2 && tokens.takeLast(2).all { it >= first }
    return Spans(segments, if (segments.isNotEmpty() && endsInPair && start < seconds) start else null)
}
