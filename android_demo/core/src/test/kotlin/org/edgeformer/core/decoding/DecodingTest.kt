package org.edgeformer.core.decoding

import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.Json
import org.edgeformer.core.SpeechTokens
import org.edgeformer.core.Transcription
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.SpeechDecoder
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class DecodingTest {
    private val golden = Golden.json("decoding.json")
    private val english =
        golden["transcription"].read { fields -> fields.skip("kind").let { Transcription.read(fields) } }
    private val multilingual = english.copy(tokens = golden["multilingual_tokens"].read(SpeechTokens::read))
    private val tokenizer = SpeechTokenizer(golden["tokenizer"].text.toByteArray(), "tokens", english.tokens.end)

    @TestFactory
    fun `rules as in transformers`() = Golden.tests(cases("rules"), { index, _ -> "$index" }) { _, case ->
        val rules = LogitRules(english, case["timestamps"].boolean)
        val logits = case["logits"].list.map { it.double.toFloat() }.toFloatArray()
        rules.apply(logits, case["said"].ints)
        val allowed = case["allowed"].list.flatMap { (it.ints[0]..it.ints[1]).toList() }
        assertEquals(allowed, logits.indices.filter { logits[it].isFinite() })
        val token = likeliest(logits)
        assertEquals(case["token"].int, token)
        assertEquals(case["log_probability"].double, logits[token] - rules.logNormalizer(logits, logits[token]), 1e-4)
    }

    @TestFactory
    fun `windows token for token`() = Golden.tests(cases("window"), { _, case -> case["name"].text }) { _, case ->
        val spec = if (case["multilingual"].boolean) multilingual else english
        val options = TranscribeOptions(
            language = case["language"].textOrNull,
            task = SpeechTask.valueOf(case["task"].text.uppercase()),
            timestamps = case["timestamps"].boolean,
            maxTokens = case["max_tokens"].int,
        )
        val length = buildPrompt(spec.tokens, options, "en").tokens.size
        val decoder = ScriptedDecoder(case, spec, length)
        val isDetected = case["multilingual"].boolean && options.language == null
        val language = if (isDetected) detectLanguage(decoder, spec.tokens) else options.language ?: "en"
        val prompt = buildPrompt(spec.tokens, options, language)
        val rules = LogitRules(spec, options.timestamps)
        val search = Search(decoder, feed(decoder, prompt), rules, spec.tokens, options.maxTokens)
        val decoded = decodeWindow(search, tokenizer, options, case["seconds"].double)
        val spans = splitAtTimestamps(decoded.hypothesis.tokens, spec, case["seconds"].double)

        val expected = case["expected"]
        assertEquals(expected["language"].text, language)
        assertEquals(expected["prompt"].ints, prompt.tokens)
        assertEquals(expected["tokens"].ints, decoded.hypothesis.tokens)
        assertEquals(expected["mean_log_probability"].double, decoded.hypothesis.meanLogProbability, 1e-4)
        assertEquals(expected["no_speech_probability"].double, decoded.noSpeechProbability ?: -1.0, 1e-6)
        assertEquals(expected["ended"].boolean, decoded.hypothesis.ended)
        assertEquals(expected["looped"].boolean, decoded.hypothesis.looped)
        assertEquals(expected["doubtful"].boolean, decoded.doubtful)
        assertEquals(expected["silent"].boolean, decoded.silent)
        assertEquals(expected["text"].text, decoded.text)
        checkSegments(expected, spans, decoded.hypothesis.tokens)
    }

    private fun checkSegments(expected: Json, spans: Spans, tokens: List<Int>) {
        assertEquals(expected["segments"].list.size, spans.segments.size)
        for ((segment, span) in expected["segments"].list.zip(spans.segments)) {
            assertEquals(segment["start"].double, span.start, 1e-9)
            assertEquals(segment["end"].double, span.end, 1e-9)
            assertEquals(segment["text"].text, tokenizer.text(span.entries.map { tokens[it] }).trim())
        }
        val resume = expected["resume"].doubleOrNull
        assertEquals(resume == null, spans.resume == null)
        assertEquals(resume ?: 0.0, spans.resume ?: 0.0, 1e-9)
    }

    @Test
    fun `byte-level tokens as text`() {
        val cases = Golden.json("byte_level.json")
        val reader = SpeechTokenizer(cases["tokenizer"].text.toByteArray(), "tokenizer.json", cases["end"].int)
        for (case in cases["cases"].list) {
            val ids = case["ids"].ints
            assertEquals(case["text"].text, reader.text(ids), "$ids")
        }
    }

    @TestFactory
    fun `skipped sentences are heard again`() = Golden.tests(cases("skipped"), { index, _ -> "$index" }) { _, case ->
        fun pairs(key: String) = case[key].list.map { it.list[0].double to it.list[1].double }
        val spans = Spans(pairs("times").map { (start, end) -> Span(start, end, emptyList()) }, null)
        val found = cutAtSkipped(spans, case["letters"].ints, pairs("sounding"))
        assertEquals(pairs("cut"), found.segments.map { it.start to it.end })
        assertEquals(case["resume"].doubleOrNull, found.resume)
    }

    @TestFactory
    fun loops() = Golden.tests(cases("loop"), { index, _ -> "$index" }) { _, case ->
        assertEquals(case["period"].int, loopPeriod(case["said"].ints, case["stretches"].int))
    }

    @TestFactory
    fun `times fit to pauses`() = Golden.tests(cases("times"), { _, case -> case["name"].text }) { _, case ->
        fun pairs(key: String) = case[key].list.map { it.list[0].double to it.list[1].double }
        val spans = pairs("times").map { (start, end) -> Span(start, end, emptyList()) }
        assertEquals(pairs("fitted"), fitToPauses(spans, pairs("sounding")).map { it.start to it.end })
    }

    @Test
    fun `texts are joined as their scripts are`() {
        for (case in cases("join")) {
            val joined = case["joined"].text
            assertEquals(joined, joinTexts(case["texts"].list.map { it.text }), joined)
        }
    }

    @Test
    fun `NaN is an error, never an answer`() {
        val rules = LogitRules(english, timestamps = false)
        for (value in listOf(Float.NaN, Float.POSITIVE_INFINITY)) {
            val logits = FloatArray(english.vocabSize).also { it[100] = value }
            rules.apply(logits, emptyList())
            assertThrows(EngineError::class.java) { rules.logNormalizer(logits, logits[likeliest(logits)]) }
            assertThrows(EngineError::class.java) { tokenProbability(logits, 5) }
        }
    }

    private fun cases(kind: String) = golden["cases"].list.filter { it["kind"].text == kind }
}

/** Gives the k-th logits of a script after the prompt and k tokens more, and sees that rows and masks fit together. */
private class ScriptedDecoder(private val case: Json, private val spec: Transcription, private val prompt: Int) :
    SpeechDecoder {
    override val rows = spec.buckets[0].rows
    override val prefillTokens = spec.prefillTokens

    override fun encode(mel: FloatTensor) = error("there is no audio")

    override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
        assertEquals(position, row)
        assertEquals((0 until row).toList(), mask.indices.filter { mask[it] == SEEN })
        return output(if (position < prompt - 1) case["detect"] else case["steps"].list[position - prompt + 1])
    }

    override fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput> {
        assertEquals(listOf(0, 0, prompt), listOf(position, row, tokens.size))
        assertEquals(0 to prompt - 1, wanted)
        assertEquals(setOf(HIDDEN), mask.toSet())
        return output(case["start"]) to output(case["steps"].list[0])
    }

    override fun close() = Unit

    private fun output(script: Json): DecoderOutput {
        val logits = FloatArray(spec.vocabSize)
        for (pair in script.list) logits[pair.list[0].int] = pair.list[1].double.toFloat()
        return DecoderOutput(logits)
    }
}
