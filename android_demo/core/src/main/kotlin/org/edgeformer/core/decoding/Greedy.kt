package org.edgeformer.core.decoding

import org.edgeformer.core.SpeechTokens
import org.edgeformer.core.engines.SpeechDecoder

/**
 * What the search of one window works with.
 *
 * @property decoder has encoded the audio and been fed the prompt.
 * @property maxTokens the longest hypothesis; the slots of the cache may end it sooner.
 * @property stopLoops whether the hypothesis ends when it repeats itself.
 * @property stretches of the window's audio between pauses; see [loopPeriod].
 */
internal class Search(
    val decoder: SpeechDecoder,
    val context: Context,
    val rules: LogitRules,
    val tokens: SpeechTokens,
    val maxTokens: Int,
    val stopLoops: Boolean = true,
    val stretches: Int = 0,
) {
    /** Whether text has begun to repeat itself; timestamps in between do not matter. */
    fun isLoop(said: List<Int>): Boolean {
        if (!stopLoops || said.last() >= tokens.firstTimestamp) return false
        return loopPeriod(said.filter { it < tokens.firstTimestamp }, stretches) > 0
    }
}

/**
 * Decodes one hypothesis, the likeliest token each time. Its tokens lie in the rows behind the prompt, so that a row is
 * a position.
 *
 * @throws org.edgeformer.core.EngineError the logits hold NaN or infinity.
 */
internal fun followLikeliest(search: Search): Hypothesis {
    val mask = search.context.mask.copyOf()
    var logits = search.context.logits.copyOf()
    val said = ArrayList<Int>()
    val logProbabilities = ArrayList<Double>()
    var position = search.context.position
    while (true) {
        search.rules.apply(logits, said)
        val token = likeliest(logits)
        logProbabilities.add(logits[token] - search.rules.logNormalizer(logits, logits[token]))
        if (token == search.tokens.end) return Hypothesis(said, logProbabilities, ended = true, looped = false)
        said.add(token)
        val looped = search.isLoop(said)
        if (looped || said.size >= search.maxTokens || position >= search.decoder.rows) {
            return Hypothesis(said, logProbabilities, ended = false, looped)
        }
        logits = search.decoder.step(token, position, position, mask).logits
        mask[position] = SEEN
        position++
    }
}
