package org.edgeformer.core

import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.asFlow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.RecordedEngine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.readRecorded
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir

/** The interface of most apps, on golden bundles that answer what was recorded. */
class ModelTest {
    @TempDir
    lateinit var place: File

    /** What was recorded has no timestamps. */
    private val plain = TranscribeOptions(timestamps = false)

    private fun open(zip: String, engine: (ModelBundle) -> Engine = ::RecordedEngine) =
        runBlocking { Model.open(Golden.file(zip), engine) }

    /** The first recorded text of a bundle, or the longest recording. */
    private fun recorded(model: Model) =
        Vectors.read(model.bundle).cases.let { cases -> cases.firstOrNull { "text" in it.raw } ?: cases.last() }

    @Test
    fun `a recorded text has its recorded answer`() {
        open("tiny-text.zip").use { model ->
            val case = recorded(model)
            val expected = case.expected as Expected.Scores
            val found = runBlocking { model.classify(case.raw["text"] as String) }
            assertEquals(expected.labels, found.labels)
            expected.scores.zip(found.scores).forEach { (wanted, score) -> assertEquals(wanted, score, 1e-4) }
            assertTrue(runBlocking { model.verify() }.ok)
            assertEquals("recorded vectors", model.executedBy)
        }
    }

    @Test
    fun `what is wrong has a type`() {
        open("tiny-text.zip").use { model ->
            val wrongTask = assertThrows(InputError::class.java) { runBlocking { model.embed("lights") } }
            assertTrue("text-classification" in wrongTask.message.orEmpty(), wrongTask.message)
            assertThrows(EngineError::class.java) { runBlocking { model.classify("weather lights weather lights") } }
        }
        assertThrows(BundleError::class.java) { open("none.zip") }
        val closed = open("tiny-text.zip").also(Model::close)
        val error = assertThrows(EngineError::class.java) { runBlocking { closed.classify("lights") } }
        assertTrue("is closed" in error.message.orEmpty(), error.message)
        open("tiny-image.zip").use { model ->
            val undecoded = assertThrows(InputError::class.java) { runBlocking { model.classify(ByteArray(4)) } }
            assertTrue("no decoder" in undecoded.message.orEmpty(), undecoded.message)
        }
    }

    @Test
    fun `a recording is transcribed from its file, and block by block`() {
        open("tiny-speech.zip").use { model ->
            val case = recorded(model)
            val name = case.raw["audio"] as String
            val wav = File(place, "recording.wav").apply { writeBytes(model.bundle.readBytes(name)) }
            val progress = ArrayList<Double>()
            val whole = runBlocking { model.transcribe(wav, plain) { progress += it } }
            assertEquals((case.expected as Expected.Text).text, whole.text)
            assertEquals(listOf(whole.duration), progress.takeLast(1))
            val rate = runBlocking { model.sampleRate() }
            val blocks = readRecorded(wav.readBytes(), rate).toList().chunked(rate / 10) { it.toFloatArray() }
            val updates = runBlocking { model.stream(blocks.asFlow(), plain).toList() }
            assertEquals(whole.text, updates.flatMap { it.final }.joinToString(" ") { it.text })
            assertThrows(InputError::class.java) { runBlocking { model.transcribe(File(place, "none.wav")) } }
        }
    }

    @Test
    fun `a late recogniser takes all that waits at once and says how late it is`() {
        open("tiny-speech.zip").use { model ->
            val rate = runBlocking { model.sampleRate() }
            val samples = readRecorded(model.bundle.readBytes(recorded(model).raw["audio"] as String), rate)
            val blocks = samples.toList().chunked(rate / 10) { it.toFloatArray() }
            val all = flow { repeat(4) { blocks.forEach { emit(it) } } } // nothing in it waits
            val updates = runBlocking { model.stream(all, plain).toList() }
            assertEquals((4 * samples.size - blocks[0].size).toDouble() / rate, updates[0].lateSeconds, 1e-9)
            assertEquals(0.0, updates.last().lateSeconds)
        }
    }

    @Test
    fun `a cancelled call ends before the next program, and the model goes on`() {
        val (heard, released) = CountDownLatch(1) to CountDownLatch(1)
        val steps = AtomicInteger()
        val engine = { bundle: ModelBundle ->
            val recorded = RecordedEngine(bundle)
            object : Engine by recorded {
                override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder {
                    val decoder = recorded.openDecoder(bucket, spec)
                    return object : SpeechDecoder by decoder {
                        override fun encode(mel: FloatTensor) {
                            decoder.encode(mel)
                            heard.countDown()
                            released.await()
                        }

                        override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
                            steps.incrementAndGet()
                            return decoder.step(token, position, row, mask)
                        }
                    }
                }
            }
        }
        open("tiny-speech.zip", engine).use { model ->
            val wav = File(place, "recording.wav")
            wav.writeBytes(model.bundle.readBytes(recorded(model).raw["audio"] as String))
            runBlocking {
                val job = launch(Dispatchers.Default) { model.transcribe(wav, plain) }
                heard.await()
                job.cancel()
                released.countDown()
                job.join()
                assertTrue(job.isCancelled)
                assertEquals(0, steps.get())
                assertTrue(model.transcribe(wav, plain).text.isNotEmpty())
            }
        }
    }
}
