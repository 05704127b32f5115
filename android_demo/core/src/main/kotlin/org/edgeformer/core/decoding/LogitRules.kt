package org.edgeformer.core.decoding

import org.edgeformer.core.EngineError
import org.edgeformer.core.Transcription
import kotlin.math.exp
import kotlin.math.ln

private const val NEVER = Float.NEGATIVE_INFINITY

internal const val CORRUPTED_LOGITS =
    "the decoder's logits hold NaN or infinity: verify the bundle, or convert at a higher precision"

/**
 * Which tokens may come next (Radford et al. 2022, sections 2.3 and 4.5), in place on logits (V).
 *
 * The vocabulary is in the order of all Whisper models: text, the end, other special tokens, timestamps. With
 * timestamps these come in pairs, except before the end; never fall; and are taken as soon as all of them together are
 * likelier than any one text token.
 */
internal class LogitRules(private val spec: Transcription, private val timestamps: Boolean) {
    private val end = spec.tokens.end
    private val firstTimestamp = spec.tokens.firstTimestamp
    private val latestStart =
        firstTimestamp + Math.rint(spec.maxInitialTimestamp / spec.secondsPerTimestamp).toInt()

    /** Sets the logits of tokens that may not follow the tokens `said` (without the prompt) to -infinity. */
    fun apply(logits: FloatArray, said: List<Int>) {
        spec.suppress.forEach { logits[it] = NEVER }
        // Special tokens stand in prompts only.
        logits.fill(NEVER, end + 1, if (timestamps) firstTimestamp else logits.size)
        if (said.isEmpty()) spec.suppressAtStart.forEach { logits[it] = NEVER }
        if (timestamps) applyTimestamps(logits, said)
    }

    /**
     * The log of the sum of exp(logits), which turns logits after [apply] into log probabilities.
     *
     * @throws EngineError the logits hold NaN or infinity.
     */
    fun logNormalizer(logits: FloatArray, largest: Float): Double {
        val result = logSum(logits, 0, logits.size, largest)
        if (result.isNaN() || result.isInfinite()) throw EngineError(CORRUPTED_LOGITS)
        return result
    }

    private fun applyTimestamps(logits: FloatArray, said: List<Int>) {
        if (said.isEmpty()) {
            logits.fill(NEVER, 0, firstTimestamp)
            if (latestStart + 1 < logits.size) logits.fill(NEVER, latestStart + 1, logits.size)
            return
        }
        val endsInTime = said.last() >= firstTimestamp
        val endsInPair = endsInTime && (said.size < 2 || said[said.size - 2] >= firstTimestamp)
        if (endsInPair) {
            logits.fill(NEVER, firstTimestamp, logits.size)
        } else if (endsInTime) {
            logits.fill(NEVER, 0, end)
        }
        val latest = said.lastOrNull { it >= firstTimestamp }
        if (latest != null) {
            // A segment that has begun may not end where it starts; the one that follows may begin where it ended.
            logits.fill(NEVER, firstTimestamp, if (endsInTime && !endsInPair) latest else latest + 1)
        }
        preferTimestamps(logits)
    }

    private fun preferTimestamps(logits: FloatArray) {
        val text = largest(logits, 0, firstTimestamp)
        val time = largest(logits, firstTimestamp, logits.size)
        if (time > NEVER && logSum(logits, firstTimestamp, logits.size, time) > text) {
            logits.fill(NEVER, 0, firstTimestamp)
        }
    }

    private fun logSum(logits: FloatArray, start: Int, end: Int, largest: Float): Double {
        var sum = 0.0
        for (index in start until end) sum += exp((logits[index] - largest).toDouble())
        return if (sum > 0) largest + ln(sum) else Double.NaN
    }

    private fun largest(logits: FloatArray, start: Int, end: Int): Float {
        var most = NEVER
        for (index in start until end) most = maxOf(most, logits[index])
        return most
    }
}

/** The token of the largest logit, the first of equals; NaN is found, for [LogitRules.logNormalizer] to refuse. */
internal fun likeliest(logits: FloatArray): Int {
    var best = 0
    for (index in logits.indices) {
        if (logits[index].isNaN()) return index
        if (logits[index] > logits[best]) best = index
    }
    return best
}
