package org.edgeformer.core.pipelines

import org.edgeformer.core.Aggregation
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.edgeformer.core.IntTensor
import org.edgeformer.core.MASK_POSITION
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Tensor
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.TextPreprocessing
import org.edgeformer.core.TokenLabels
import org.edgeformer.core.Transcription
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.TextEncoder
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

private const val NEAR = 1e-8

/** Places of tokens, and answers that are places, as places.json has them. */
class PlacesTest {
    private val golden = Golden.json("places.json")
    private val words = Golden.json("wordpiece.json")

    private fun cases(kind: String) = golden["cases"].list.filter { it["kind"].text == kind }

    private fun encoder(name: String) = TextEncoder(
        TextPreprocessing("t", 0, null),
        words["tokenizers"][name].text.toByteArray(),
        listOf(ProgramSpec("all", "m", "main", listOf(TensorSpec("input_ids", "int32", listOf(1, 4096))), emptyList())),
    )

    @Test
    fun `tokens stand where the library says`() {
        val encoders = HashMap<String, TextEncoder>()
        for (case in cases("tokens")) {
            val of = words["cases"].list[case["of"].int]
            val name = of["tokenizer"].text
            val text = of["text"].text
            val encoder = encoders.getOrPut(name) { encoder(name) }
            val places = encoder.windows(text, of["pair"].textOrNull, 0).single().places!!
            assertEquals(case["starts"].ints, places.starts.toList(), "$name: $text")
            assertEquals(case["ends"].ints, places.ends.toList(), "$name: $text")
            assertEquals(case["texts"].ints, places.texts.toList(), "$name: $text")
            assertEquals(case["continues"].ints, places.continues.map { if (it) 1 else 0 }, "$name: $text")
            val keys = places.texts.zip(places.words.toList())
            val begins = keys.indices.map { if (it == 0 || keys[it] != keys[it - 1]) 1 else 0 }
            assertEquals(case["begins"].ints, begins, "$name: $text")
        }
    }

    @Test
    fun `answers to questions`() = ModelBundle.open(Golden.file("places-spans.zip")).use { bundle ->
        val pipeline = QuestionAnswerer(bundle, FormulaEngine(2))
        for (case in cases("spans")) {
            val (question, context) = case["question"].text to case["context"].text
            val most = case["max_answer_tokens"].let { if (it.isNull) null else it.int }
            val options = SpanOptions(case["top"].int, case["unanswerable"].boolean, most)
            val found = pipeline.run(question, context, options).answers
            val expected = case["answers"].list.map { it.list }
            assertEquals(expected.map { it[0].int to it[1].int }, found.map { it.start to it.end }, context)
            expected.zip(found) { a, b -> assertEquals(a[2].double, b.score, NEAR, context) }
        }
    }

    @Test
    fun `entities of texts`() = ModelBundle.open(Golden.file("places-entities.zip")).use { bundle ->
        val pipeline = EntityFinder(bundle, FormulaEngine((bundle.manifest.postprocessing as TokenLabels).labels.size))
        for (case in cases("entities")) {
            val aggregation = Aggregation.values().first { it.key == case["aggregation"].text }
            val found = pipeline.run(case["text"].text, aggregation).entities
            val expected = case["entities"].list.map { it.list }
            assertEquals(
                expected.map { Triple(it[0].int, it[1].int, it[2].text) },
                found.map { Triple(it.start, it.end, it.label) },
                "${case["aggregation"].text}: ${case["text"].text}",
            )
            expected.zip(found) { a, b -> assertEquals(a[3].double, b.score, NEAR) }
        }
    }

    @Test
    fun `tokens for masks`() = ModelBundle.open(Golden.file("places-fills.zip")).use { bundle ->
        val pipeline = MaskFiller(bundle, FormulaEngine(bundle.manifest.programs[0].outputs[0].shape[1]))
        for (case in cases("fills")) {
            val targets = case["targets"].let { each -> if (each.isNull) null else each.list.map { it.text } }
            val found = pipeline.run(case["text"].text, FillOptions(case["top"].int, targets))
            val expected = case["fills"].list.map { it.list }
            assertEquals(case["truncated"].boolean, found.truncated)
            assertEquals(
                expected.map { Triple(it[0].int, it[1].text, it[2].int) },
                found.fills.map { Triple(it.token, it.text, it.mask) },
                case["text"].text,
            )
            expected.zip(found.fills) { a, b -> assertEquals(a[3].double, b.score, NEAR) }
        }
        assertThrows(InputError::class.java) { pipeline.run("no mask") }
        assertThrows(InputError::class.java) { pipeline.run("[MASK]", FillOptions(targets = listOf("two words"))) }
        assertThrows(InputError::class.java) { FillOptions(top = 0) }
        assertThrows(InputError::class.java) { FillOptions(targets = emptyList()) }
        Unit
    }

    @Test
    fun `labels of a call`() {
        ModelBundle.open(Golden.file("places-labels.zip")).use { bundle ->
            val pipeline = TextClassifier(bundle, FormulaEngine(3, ofLast = true))
            for (case in cases("labels")) {
                val labels = case["labels"].list.map { it.text }
                val options = ZeroShotOptions(labels, case["template"].text, case["multi_label"].boolean)
                val found = pipeline.run(case["text"].text, options)
                val expected = case["found"].list.map { it.list }
                assertEquals(case["truncated"].boolean, found.truncated)
                assertEquals(expected.map { it[0].text }, found.labels, case["text"].text)
                expected.zip(found.scores) { a, b -> assertEquals(a[1].double, b, NEAR) }
            }
        }
        ModelBundle.open(Golden.file("tiny-text.zip")).use { bundle ->
            val pipeline = TextClassifier(bundle, FormulaEngine(3, ofLast = true))
            assertThrows(InputError::class.java) { pipeline.run("hello", ZeroShotOptions(listOf("a"))) }
        }
    }

    @Test
    fun `what cannot be asked`() {
        ModelBundle.open(Golden.file("tiny-spans.zip")).use { bundle ->
            val pipeline = QuestionAnswerer(bundle, FormulaEngine(2))
            assertThrows(InputError::class.java) { pipeline.run("", "context") }
            assertThrows(InputError::class.java) { pipeline.run("question", "") }
            assertThrows(InputError::class.java) { pipeline.run("hello ".repeat(60), "hello") }
            assertThrows(InputError::class.java) { pipeline.run("hello", "a".repeat(200_001)) }
            assertThrows(InputError::class.java) { SpanOptions(top = 0) }
            assertEquals(emptyList<AnswerSpan>(), pipeline.run("hello", " ").answers)
        }
    }
}

/** Logits of each token by its id and place, or of a masked one or the last, as places.json says. */
private class FormulaEngine(private val width: Int, private val ofLast: Boolean = false) : Engine {
    override val name = "formula"
    override val executedBy = "formula"

    override fun run(program: String, inputs: Map<String, Tensor>): Map<String, Tensor> {
        val ids = (inputs.getValue("input_ids") as IntTensor).toArray()
        val values = FloatArray(ids.size * width) {
            val mixed = 7919L * ids[it / width] + 104729L * (it / width) + 15485863L * (it % width)
            (mixed % 65521) / 8192f
        }
        val last = if (ofLast) (inputs.getValue("attention_mask") as IntTensor).toArray().sum() - 1 else null
        val mark = (inputs[MASK_POSITION] as IntTensor?)?.toArray()?.indexOf(1)
            ?: last
            ?: return mapOf("logits" to FloatTensor.of(values, 1, ids.size, width))
        return mapOf("logits" to FloatTensor.of(values.copyOfRange(mark * width, (mark + 1) * width), 1, width))
    }

    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder = error("no speech")

    override fun close() = Unit
}
