package org.edgeformer.core.pipelines

/**
 * Text that was said in one piece.
 *
 * @property start in seconds from the start of the audio, as is [end]; they never fall from one segment to the next.
 * @property text without spaces around it.
 * @property meanLogProbability of the window's tokens.
 * @property noSpeechProbability that nobody speaks in the window; null where the model has no token for it.
 * @property tokens of the text.
 */
data class Segment(
    val start: Double,
    val end: Double,
    val text: String,
    val meanLogProbability: Double,
    val noSpeechProbability: Double?,
    val tokens: List<Int>,
    val doubtful: Boolean = false,
)

/**
 * What a transcript cost, in milliseconds.
 *
 * @property tokens of text and timestamps in the answer.
 * @property windows windows of audio that the model transcribed; skipped silence is none.
 */
data class SpeechStatistics(
    val melMs: Double,
    val encodeMs: Double,
    val decodeMs: Double,
    val totalMs: Double,
    val tokens: Int,
    val windows: Int,
)

/**
 * What was said in a recording.
 *
 * @property text of all segments.
 * @property language a code as "en": as asked for or found out; null where all is silence and nothing was asked for.
 * @property duration of the audio in seconds.
 */
data class Transcript(
    val text: String,
    val language: String?,
    val segments: List<Segment>,
    val duration: Double,
    val statistics: SpeechStatistics,
)
