package org.edgeformer.core.decoding

/**
 * A window's transcript and how good it seems.
 *
 * @property hypothesis the tokens; none where the window is silence.
 * @property text of the tokens.
 * @property noSpeechProbability null where the model has no token for it.
 * @property silent nobody speaks: the text was improbable and its absence probable, or it was little for its audio.
 * @property doubtful the text is improbable or ended in a loop. On a phone there is no other try: it is marked.
 */
internal class Decoded(
    val hypothesis: Hypothesis,
    val text: String,
    val noSpeechProbability: Double?,
    val silent: Boolean,
    val doubtful: Boolean = false,
)

/**
 * Decodes a window greedily; silence has no text, and a loop is said once.
 *
 * @param soundingSeconds of the window's audio, without its pauses.
 */
internal fun decodeWindow(
    search: Search,
    tokenizer: SpeechTokenizer,
    options: TranscribeOptions,
    soundingSeconds: Double,
): Decoded {
    val noSpeech = tokenProbability(search.context.startLogits, search.tokens.noSpeech)
    val found = followLikeliest(search)
    val isDoubtful = found.meanLogProbability < options.logProbabilityThreshold || found.looped
    val said = if (found.looped) withoutLoop(found, search.tokens.firstTimestamp) else found
    val decoded = Decoded(said, tokenizer.text(said.tokens), noSpeech, silent = false, doubtful = isDoubtful)
    if (!isSilent(decoded, found.meanLogProbability, options, soundingSeconds)) return decoded
    return Decoded(Hypothesis(emptyList(), emptyList(), found.ended, found.looped), "", noSpeech, silent = true)
}

/**
 * Whether text stands for no speech: where that is nearly certain, and where there is little text for the audio, it need
 * not be as improbable as other text.
 */
private fun isSilent(
    decoded: Decoded,
    likelihood: Double,
    options: TranscribeOptions,
    soundingSeconds: Double,
): Boolean {
    val noSpeech = decoded.noSpeechProbability ?: return false
    if (noSpeech > options.noSpeechThreshold && likelihood < options.logProbabilityThreshold) return true
    val letters = lettersOf(decoded.text)
    val isUnlikelyText = decoded.doubtful || letters < soundingSeconds
    val isSparse = letters < SPARSE_LETTERS_PER_SECOND * soundingSeconds
    val isLikely = isSparse && noSpeech > options.noSpeechThreshold / (if (isUnlikelyText) 12 else 2)
    val isSure = noSpeech > (1 + options.noSpeechThreshold) / 2
    return likelihood < options.logProbabilityThreshold / 2 && (isLikely || isSure)
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
