package org.edgeformer.core.decoding

import org.edgeformer.core.EngineError
import org.edgeformer.core.InputError
import org.edgeformer.core.SpeechTokens
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.shorten
import kotlin.math.exp

/** Tokens to feed before a transcript; `start` is where the one that starts it stands. */
internal class Prompt(val tokens: List<Int>, val start: Int)

/**
 * A decoder that has been fed a prompt.
 *
 * @property position of the next token, which is also how many rows the prompt takes.
 * @property mask (L), sees the prompt's rows.
 * @property logits (V), what may come first.
 * @property startLogits (V), what may follow the token that starts a transcript.
 */
internal class Context(val position: Int, val mask: FloatArray, val logits: FloatArray, val startLogits: FloatArray)

/** Refuses a language or task that the model does not know. */
internal fun checkLanguage(options: TranscribeOptions, tokens: SpeechTokens) {
    val language = options.language
    if (tokens.languages.isEmpty()) {
        if (language != null && language != "en") {
            throw InputError("language ${shorten(language)}: this model knows English only; expected none or 'en'")
        }
        if (options.task == SpeechTask.TRANSLATE) {
            throw InputError("translation: this model knows English only; it needs a multilingual model")
        }
        return
    }
    if (language != null && language !in tokens.languages) {
        throw InputError("language ${shorten(language)}: ${knownLanguages(tokens)}")
    }
    if (options.task == SpeechTask.TRANSLATE && tokens.translate == null) {
        throw InputError("translation: this model was not made to translate")
    }
}

/** What a model knows in place of a language, and what to do where its bundle was made for one. */
private fun knownLanguages(tokens: SpeechTokens): String {
    val known = tokens.languages.keys.sorted().joinToString(", ")
    if (tokens.languages.size > 1) return "this model knows $known"
    return "this bundle was made for $known alone; convert the model again with --language any for all"
}

/** The tokens before a transcript in a language, such as "en". */
internal fun buildPrompt(tokens: SpeechTokens, options: TranscribeOptions, language: String): Prompt {
    val fed = arrayListOf(tokens.start)
    if (tokens.languages.isNotEmpty()) {
        fed.add(tokens.languages.getValue(language))
        val task = if (options.task == SpeechTask.TRANSLATE) tokens.translate else tokens.transcribe
        if (task != null) fed.add(task)
    }
    if (!options.timestamps) fed.add(tokens.noTimestamps)
    return Prompt(fed, start = 0)
}

/** Feeds a prompt, from the first row on. A short part comes first, so that the last calls are full ones. */
internal fun feed(decoder: SpeechDecoder, prompt: Prompt): Context {
    val count = prompt.tokens.size
    val mask = hiddenRows(decoder.rows)
    var startLogits = FloatArray(0)
    var last = DecoderOutput(startLogits)
    var done = 0
    while (done < count) {
        val size = ((count - done) % decoder.prefillTokens).let { if (it == 0) decoder.prefillTokens else it }
        val part = prompt.tokens.subList(done, done + size)
        val holdsStart = prompt.start in done until done + size
        val atStart: DecoderOutput
        if (size == 1) {
            last = decoder.step(part[0], done, done, mask)
            atStart = last
        } else {
            val wanted = (if (holdsStart) prompt.start - done else size - 1) to size - 1
            val outputs = decoder.prefill(part, done, done, mask, wanted)
            last = outputs.second
            atStart = outputs.first
        }
        if (holdsStart) startLogits = atStart.logits.copyOf()
        mask.fill(SEEN, done, done + size)
        done += size
    }
    return Context(count, mask, last.logits.copyOf(), startLogits)
}

/**
 * A token's probability among all of logits (V); null without a token.
 *
 * @throws EngineError the logits hold NaN or infinity.
 */
internal fun tokenProbability(logits: FloatArray, token: Int?): Double? {
    if (token == null) return null
    val largest = logits[likeliest(logits)]
    var sum = 0.0
    for (value in logits) sum += exp((value - largest).toDouble())
    val probability = exp((logits[token] - largest).toDouble()) / sum
    if (probability.isNaN() || probability.isInfinite()) throw EngineError(CORRUPTED_LOGITS)
    return probability
}

/**
 * The likeliest of a multilingual model's languages. The decoder has encoded a recording and is fed the start alone, into
 * its first row.
 */
internal fun detectLanguage(decoder: SpeechDecoder, tokens: SpeechTokens): String {
    val logits = decoder.step(tokens.start, 0, 0, hiddenRows(decoder.rows)).logits
    return tokens.languages.entries.maxByOrNull { logits[it.value] }?.key ?: error("the model is multilingual")
}
