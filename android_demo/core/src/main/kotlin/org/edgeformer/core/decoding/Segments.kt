package org.edgeformer.core.decoding

import org.edgeformer.core.Transcription
import kotlin.math.abs

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
 * Of audio that sounds. Who speaks says 10 to 20, and 5 ideographs; models give less for music, noise and animals, and
 * where they skip sentences.
 */
internal const val SPARSE_LETTERS_PER_SECOND = 4.0
private const val USUAL_LETTERS_PER_SECOND = 10.0

/** Of audio that sounds, in one segment: with less, sparse text is slow speech. */
private const val SKIPPED_SECONDS = 5.0

/** Of a segment's audio, before and behind where it is cut. */
private const val SHORTEST_PART_SECONDS = 1.0

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
 * A window's segments up to where the model skipped sentences, to be heard again from there on; the spans themselves where
 * nothing is cut.
 *
 * The model lets the segment before them last until they end, so that there is far too little text for the audio. It is
 * cut in the pause that is nearest to where its text ends at the usual rate.
 *
 * @param letters of each segment's text.
 * @param sounding begin and end in seconds, in order: the audio between its pauses.
 */
internal fun cutAtSkipped(spans: Spans, letters: List<Int>, sounding: List<Pair<Double, Double>>): Spans {
    for ((index, span) in spans.segments.withIndex()) {
        val count = letters[index]
        val seconds = sounding.sumOf { (begin, end) -> maxOf(0.0, minOf(end, span.end) - maxOf(begin, span.start)) }
        if (seconds < SKIPPED_SECONDS || count >= SPARSE_LETTERS_PER_SECOND * seconds) continue
        val places = span.start + SHORTEST_PART_SECONDS..span.end - SHORTEST_PART_SECONDS
        val expected = span.start + count / USUAL_LETTERS_PER_SECOND
        val resume = sounding.map { it.second }.filter { it in places }.minByOrNull { abs(it - expected) } ?: continue
        return Spans(spans.segments.take(index) + Span(span.start, resume, span.entries), resume)
    }
    return spans
}

/** Letters and digits: a note and a full stop are none. */
internal fun lettersOf(text: String): Int = text.codePoints().filter(Character::isLetterOrDigit).count().toInt()

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
