package org.edgeformer.core.pipelines

import org.edgeformer.core.decoding.Decoded
import org.edgeformer.core.decoding.LogitRules
import org.edgeformer.core.decoding.Search
import org.edgeformer.core.decoding.Span
import org.edgeformer.core.decoding.Spans
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.decoding.buildPrompt
import org.edgeformer.core.decoding.checkLanguage
import org.edgeformer.core.decoding.cutAtSkipped
import org.edgeformer.core.decoding.decodeWindow
import org.edgeformer.core.decoding.detectLanguage
import org.edgeformer.core.decoding.feed
import org.edgeformer.core.decoding.fitToPauses
import org.edgeformer.core.decoding.joinTexts
import org.edgeformer.core.decoding.lettersOf
import org.edgeformer.core.decoding.splitAtTimestamps
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.PauseOptions
import org.edgeformer.core.preprocess.leveled

/** Shorter pauses are parts of words: the closure of a plosive lasts about 0.1 s. */
private val PAUSES_BETWEEN_WORDS = PauseOptions(minPauseSeconds = 0.2, marginSeconds = 0.04)

/**
 * One recording being transcribed, window by window: its language and its costs. Not for several threads at once.
 *
 * @throws org.edgeformer.core.InputError the model does not know the language or the task that the options ask for.
 */
internal class SpeechSession(private val model: SpeechModel, private val options: TranscribeOptions) {
    private class WindowSegments(val segments: List<Segment>, val resume: Int?)

    private val rate = model.audio.sampleRate
    private val begin = System.nanoTime()
    private var melNs = 0L
    private var encodeNs = 0L
    private var decodeNs = 0L
    private var tokens = 0
    private var windows = 0

    /** Up to this sample of the recording, audio is not heard a third time. */
    private var heardAgain = 0

    private var language: String?

    init {
        checkLanguage(options, model.spec.tokens)
        language = if (model.spec.tokens.languages.isEmpty()) "en" else options.language
    }

    /**
     * Transcribes the first window of a buffer and drops it, or drops silence.
     *
     * @param buffer not empty; all audio that is left, or more of it than a window.
     */
    fun transcribeNext(buffer: AudioBuffer): List<Segment> {
        val window = nextWindow(buffer.samples, model.audio.windowSamples, rate, model.silence)
        if (window.hasSpeech) return transcribeFirst(buffer, window.end)
        buffer.drop(window.end)
        return emptyList()
    }

    /** Transcribes the buffer's first samples, at most a window's, and drops those that are done with. */
    fun transcribeFirst(buffer: AudioBuffer, size: Int): List<Segment> {
        val samples = buffer.samples.copyOf(size)
        val found = transcribe(samples, buffer.start)
        val isRetried = found.resume != null && isWorthARetry(samples, found.resume, rate, model.silence)
        buffer.drop(if (isRetried) found.resume else size)
        return found.segments
    }

    /** What samples (N) may say; nothing is remembered of it. */
    fun guess(samples: FloatArray): String {
        if (model.silence.isSilent(samples)) return ""
        val quick = options.copy(timestamps = false)
        return synchronized(model.lock) { decode(encode(samples), quick, sounding(samples)).text.trim() }
    }

    /** All segments of a recording of so many samples as its transcript. */
    fun transcript(segments: List<Segment>, samples: Int) = Transcript(
        text = joinTexts(segments.map { it.text }),
        language = language,
        segments = segments.toList(),
        duration = samples.toDouble() / rate,
        statistics = SpeechStatistics(
            melMs = melNs / 1e6,
            encodeMs = encodeNs / 1e6,
            decodeMs = decodeNs / 1e6,
            totalMs = (System.nanoTime() - begin) / 1e6,
            tokens = tokens,
            windows = windows,
        ),
    )

    /** Transcribes samples that begin at sample `start` of the whole recording. */
    private fun transcribe(samples: FloatArray, start: Int): WindowSegments {
        val sounding = sounding(samples)
        val decoded = synchronized(model.lock) {
            val decoder = encode(samples)
            if (language == null) language = detectLanguage(decoder, model.spec.tokens)
            decode(decoder, options, sounding)
        }
        windows++
        tokens += decoded.hypothesis.tokens.size
        val whole = splitAtTimestamps(decoded.hypothesis.tokens, model.spec, samples.size.toDouble() / rate)
        val spans = if (options.timestamps && start >= heardAgain) cutAtSkipped(whole, letters(whole, decoded), sounding) else whole
        if (spans !== whole) heardAgain = start + samples.size
        val fitted = if (options.timestamps) fitToPauses(spans.segments, sounding) else spans.segments
        val segments = fitted.map { segment(decoded, it, start.toDouble() / rate) }
        return WindowSegments(segments.filter { it.text.isNotEmpty() }, spans.resume?.let { Math.rint(it * rate).toInt() })
    }

    private fun letters(spans: Spans, decoded: Decoded): List<Int> = spans.segments.map { span ->
        lettersOf(model.tokenizer.text(span.entries.map { decoded.hypothesis.tokens[it] }))
    }

    /** Begin and end in seconds of the audio between its pauses. */
    private fun sounding(samples: FloatArray): List<Pair<Double, Double>> =
        model.silence.speechRanges(samples, PAUSES_BETWEEN_WORDS)
            .map { it.first.toDouble() / rate to (it.last + 1).toDouble() / rate }

    private fun segment(decoded: Decoded, span: Span, offset: Double): Segment {
        val said = span.entries.map { decoded.hypothesis.tokens[it] }
        return Segment(
            start = milliseconds(offset + span.start),
            end = milliseconds(offset + span.end),
            text = model.tokenizer.text(said).trim(),
            meanLogProbability = decoded.hypothesis.meanLogProbability,
            noSpeechProbability = decoded.noSpeechProbability,
            tokens = said,
            doubtful = decoded.doubtful,
        )
    }

    private fun encode(samples: FloatArray): SpeechDecoder {
        val start = System.nanoTime()
        val bucket = model.bucketFor(samples.size)
        val mel = model.mel(leveled(samples), bucket)
        val ready = System.nanoTime()
        val decoder = model.decoder(bucket)
        decoder.encode(mel)
        melNs += ready - start
        encodeNs += System.nanoTime() - ready
        return decoder
    }

    private fun decode(
        decoder: SpeechDecoder,
        options: TranscribeOptions,
        sounding: List<Pair<Double, Double>>,
    ): Decoded {
        val start = System.nanoTime()
        val tokens = model.spec.tokens
        val prompt = buildPrompt(tokens, options, language ?: detectLanguage(decoder, tokens))
        val rules = LogitRules(model.spec, options.timestamps)
        val context = feed(decoder, prompt)
        val search = Search(decoder, context, rules, tokens, options.maxTokens, stretches = sounding.size)
        val seconds = sounding.sumOf { it.second - it.first }
        return decodeWindow(search, model.tokenizer, options, seconds).also { decodeNs += System.nanoTime() - start }
    }
}

/** Milliseconds are enough, and sums that mean the same time become the same number. */
private fun milliseconds(seconds: Double) = Math.rint(seconds * 1000) / 1000
