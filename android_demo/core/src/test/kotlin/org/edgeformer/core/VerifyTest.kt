package org.edgeformer.core

import java.io.ByteArrayInputStream
import java.io.File
import javax.imageio.ImageIO
import org.edgeformer.core.engines.CheckedEngine
import org.edgeformer.core.engines.RecordedEngine
import org.edgeformer.core.pipelines.ImageTextComparer
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.RgbImage
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** Whole bundles, with an engine that answers what was recorded. */
class VerifyTest {
    @TempDir
    lateinit var place: File

    @Test
    fun `text answers as the reference`() {
        val found = verification("tiny-text.zip")
        assertEquals(listOf("preprocess", "seq_8", "seq_16", "answer"), found.stages.map { it.name })
        assertTrue(found.ok, found.toString())
        assertEquals(0.0, found.stages[0].maxAbs)
    }

    @Test
    fun `a score is that of the reference`() {
        val found = verification("tiny-score.zip")
        assertTrue(found.ok, found.toString())
        assertEquals("seq_8", verification("tiny-score.zip") { _, _, value -> value + 1 }.firstDiverging)
    }

    @Test
    fun `places in texts are those of the reference`() {
        for (zip in listOf("tiny-spans.zip", "tiny-entities.zip", "tiny-fills.zip")) {
            val found = verification(zip)
            assertTrue(found.ok, found.toString())
            assertEquals("seq_24", verification(zip) { _, _, value -> value + 1 }.firstDiverging)
        }
    }

    @Test
    fun `images answer as the reference, pixel by pixel`() {
        val found = verification("tiny-image.zip")
        assertTrue(found.ok, found.toString())
        assertEquals(0.0, found.stages[0].maxAbs)
    }

    @Test
    fun `images and texts are compared as the reference does it`() {
        val found = verification("tiny-image-text.zip")
        assertEquals(listOf("preprocess", "image", "seq_8", "seq_16", "answer"), found.stages.map { it.name })
        assertTrue(found.ok, found.toString())
        val wrong = verification("tiny-image-text.zip") { program, _, value -> if (program == "seq_8") -value else value }
        assertEquals(listOf("seq_8", "answer"), wrong.stages.filter { !it.ok }.map { it.name })
        ModelBundle.open(Golden.file("tiny-image-text.zip")).use { bundle ->
            val ran = ArrayList<String>() // the program of each value
            val engine = ChangedEngine(bundle) { program, _, value -> value.also { ran += program } }
            val comparer = ImageTextComparer(bundle, engine, PngDecoder)
            val case = Vectors.read(bundle).cases.first { "labels" in it.raw }
            val photo = PngDecoder.decode(bundle.readBytes(case.raw["image"] as String))
            val expected = case.expected as Expected.Scores
            repeat(2) {
                val answer = comparer.classify(photo, expected.labels.reversed())
                assertEquals(expected.labels, answer.labels)
                assertArrayEquals(expected.scores.toDoubleArray(), answer.scores.toDoubleArray(), 1e-6)
            }
            assertEquals(2 * EMBEDDING_DIM, ran.count { it != IMAGE_PROGRAM }) // each text is embedded once
            val (image, text) = comparer.embed(photo).vector to comparer.embed("This is a photo of lights.").vector
            val cosine = image.indices.sumOf { image[it].toDouble() * text[it] }
            assertEquals(cosine, comparer.score(photo, "This is a photo of lights.").score, 1e-6)
            assertThrows(InputError::class.java) { comparer.classify(photo, listOf("a"), "no place") }
        }
    }

    @Test
    fun `speech answers as the reference`() {
        val found = verification("tiny-speech.zip")
        assertEquals(listOf("mel", "encode", "steps", "text"), found.stages.map { it.name })
        assertTrue(found.ok, found.toString())
        assertTrue((found.stages[0].maxAbs ?: 1.0) < 1e-4, found.toString())
        assertEquals(0.0, found.stages[3].maxAbs)
    }

    @Test
    fun `the first stage that diverges is named`() {
        assertEquals("seq_8", verification("tiny-text.zip") { _, _, value -> value + 1 }.firstDiverging)
        assertEquals("image", verification("tiny-image.zip") { _, _, value -> -value }.firstDiverging)
        val deaf = verification("tiny-speech.zip") { _, name, value -> if (name == "cross_v_0") 0f else value }
        assertEquals("encode", deaf.firstDiverging)
    }

    @Test
    fun `a step that diverges is named, and what all logits have in common does not matter`() {
        val shifted = verification("tiny-speech.zip") { _, name, value -> if (name == "logits") value + 3 else value }
        assertTrue(shifted.ok, shifted.toString())
        val wrong = verification("tiny-speech.zip") { program, name, value ->
            if (name == "logits" && program == "decode_50") value * 2 else value
        }
        assertEquals("step 1", wrong.firstDiverging)
    }

    @Test
    fun `NaN and an engine that fails are stages that are not ok`() {
        val corrupted = verification("tiny-text.zip") { _, _, _ -> Float.NaN }
        assertEquals("seq_8", corrupted.firstDiverging)
        assertNull(corrupted.stages[1].maxAbs)
        assertFalse(corrupted.stages.last().ok)
        val failing = verification("tiny-speech.zip") { _, _, _ -> error("out of memory") }
        assertEquals(listOf("encode", "step 0", "text"), failing.stages.filter { !it.ok }.map { it.name })
        assertTrue(failing.stages[1].reason.orEmpty().contains("out of memory"), failing.toString())
    }

    @Test
    fun `recorded numbers that the model has no row for`() {
        val manifest = File(unpacked("tiny-text.zip", place), "manifest.json")
        manifest.writeText(manifest.readText().replace("\"vocab_size\": 12", "\"vocab_size\": 11"))
        ModelBundle.open(manifest.parentFile).use { bundle ->
            val error = assertThrows(BundleError::class.java) { Vectors.read(bundle) }
            assertTrue("input_ids: expected numbers from 0 to 10" in error.message.orEmpty(), error.message)
        }
    }

    @Test
    fun `labels in another order are named`() {
        fun reason(vararg labels: String): String? {
            val manifest = File(unpacked("tiny-text.zip", place), "manifest.json")
            val order = labels.joinToString(",") { "\"$it\"" }
            manifest.writeText(manifest.readText().replace(Regex("\"labels\": \\[[^]]*]"), "\"labels\": [$order]"))
            ModelBundle.open(manifest.parentFile).use { bundle ->
                return verify(bundle, RecordedEngine(bundle), PngDecoder).stages.last().reason
            }
        }
        assertNull(reason("lights", "weather", "greeting"))
        assertTrue("are exchanged" in reason("weather", "lights", "greeting").orEmpty())
        assertTrue("3 labels stand in another order" in reason("weather", "greeting", "lights").orEmpty())
    }

    private fun verification(
        zip: String,
        change: (program: String, output: String, value: Float) -> Float = { _, _, value -> value },
    ): Verification {
        ModelBundle.open(Golden.file(zip)).use { bundle ->
            return verify(bundle, ChangedEngine(bundle, change), PngDecoder)
        }
    }
}

/** Of tiny-image-text.zip. */
private const val EMBEDDING_DIM = 4

/** Answers what was recorded, with each value changed. */
private class ChangedEngine(bundle: ModelBundle, private val change: (String, String, Float) -> Float) :
    CheckedEngine(bundle.manifest.programs) {
    override val name = "changed"
    override val executedBy = "recorded vectors"
    private val recorded = RecordedEngine(bundle)

    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> =
        recorded.run(program.name, inputs).mapValues { (name, tensor) ->
            val values = (tensor as FloatTensor).toArray()
            FloatTensor.of(FloatArray(values.size) { change(program.name, name, values[it]) }, *tensor.shape.toIntArray())
        }

    override fun release() = Unit
}

private object PngDecoder : ImageDecoder {
    override fun decode(data: ByteArray): RgbImage {
        val image = ImageIO.read(ByteArrayInputStream(data))
        val pixels = ByteArray(3 * image.width * image.height) { index ->
            val color = image.getRGB(index / 3 % image.width, index / 3 / image.width)
            (color shr (16 - 8 * (index % 3))).toByte()
        }
        return RgbImage(image.width, image.height, pixels)
    }
}
