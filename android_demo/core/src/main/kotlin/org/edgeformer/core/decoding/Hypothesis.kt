package org.edgeformer.core.decoding

/**
 * A transcript of one window.
 *
 * @property tokens text and timestamps, without prompt and end.
 * @property logProbabilities of each token, and of the end where it was reached.
 * @property ended the model said that the transcript is complete.
 * @property looped the search gave up since the same text came again and again.
 */
internal class Hypothesis(
    val tokens: List<Int>,
    val logProbabilities: List<Double>,
    val ended: Boolean,
    val looped: Boolean,
) {
    /** Per token, the end counted as one even if it was not reached. */
    val meanLogProbability: Double get() = logProbabilities.sum() / (tokens.size + 1)
}
