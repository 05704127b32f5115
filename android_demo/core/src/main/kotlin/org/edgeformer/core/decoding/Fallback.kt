package org.edgeformer.core.decoding

/**
 * A window's transcript and how good it seems.
 *
 * @property hypothesis the tokens; none where the window is silence.
 * @property text of the tokens.
 * @property noSpeechProbability null where the model has no token for it.
 * @property silent nobody speaks: the text was improbable and its absence probable.
 * @property doubtful the text is improbable or ended in a loop. On a phone there is no other try: it is marked.
 */
internal class Decoded(
    val hypothesis: Hypothesis,
    val text: String,
    val noSpeechProbability: Double?,
    val silent: Boolean,
    val doubtful: Boolean = false,
)

/** Decodes a window greedily; silence has no text, and a loop is said once. */
internal fun decodeWindow(search: Search, tokenizer: SpeechTokenizer, options: TranscribeOptions): Decoded {
    val noSpeech = tokenProbability(search.context.startLogits, search.tokens.noSpeech)
    val found = followLikeliest(search)
    val isImprobable = found.meanLogProbability < options.logProbabilityThreshold
    if (noSpeech != null && noSpeech > options.noSpeechThreshold && isImprobable) {
        return Decoded(Hypothesis(emptyList(), emptyList(), found.ended, found.looped), "", noSpeech, silent = true)
    }
    val said = if (found.looped) withoutLoop(found, search.tokens.firstTimestamp) else found
    val isDoubtful = isImprobable || found.looped
    return Decoded(said, tokenizer.text(said.tokens), noSpeech, silent = false, doubtful = isDoubtful)
}

/** A hypothesis that ended in a loop, with the loop said once; timestamps are no part of loops. */
private fun withoutLoop(found: Hypothesis, firstTimestamp: Int): Hypothesis {
    val text = found.tokens.indices.filter { found.tokens[it] < firstTimestamp }
    val said = text.map { found.tokens[it] }
    val period = loopPeriod(said)
    if (period == 0) return found
    var kept = said.size
    while (kept > period && said[kept - 1] == said[kept - 1 - period]) kept--
    val end = text[kept - 1] + 1
    return Hypothesis(found.tokens.subList(0, end), found.logProbabilities.subList(0, end), found.ended, found.looped)
}
