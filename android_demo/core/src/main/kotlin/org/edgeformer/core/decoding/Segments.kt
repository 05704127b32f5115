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

/** A time that the model gives is taken for that of a pause so near. */
private const val NEAR_PAUSE_SECONDS = 0.4

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

/**
 * Segments that start behind, and end before, the pauses that their times lie in or near. Models often let a segment
 * start where the last one ended, before the pause between them.
 *
 * @param spans in order; times never fall, before and after.
 * @param sounding begin and end in seconds, in order: the audio between its pauses.
 */
internal fun fitToPauses(spans: List<Span>, sounding: List<Pair<Double, Double>>): List<Span> {
    val edges = listOf(0.0) + sounding.flatMap { listOf(it.first, it.second) } + Double.POSITIVE_INFINITY
    val pauses = edges.chunked(2) { (begin, end) -> begin to end }
    val fitted = ArrayList<Span>()
    for (span in spans) {
        val least = fitted.lastOrNull()?.end ?: 0.0
        val behind = nearest(pauses, span.start).second
        val before = nearest(pauses, span.end).first
        val start = maxOf(least, if (behind < span.end) behind else span.start)
        fitted.add(Span(start, maxOf(start, if (before > start) before else span.end), span.entries))
    }
    return fitted
}

/** The pause at or near a time, and else the time itself as one without length. */
private fun nearest(pauses: List<Pair<Double, Double>>, time: Double): Pair<Double, Double> {
    val distance = { (begin, end): Pair<Double, Double> -> maxOf(begin - time, time - end, 0.0) }
    val pause = pauses.minByOrNull(distance) ?: return time to time
    return if (distance(pause) <= NEAR_PAUSE_SECONDS) pause else time to time
}
