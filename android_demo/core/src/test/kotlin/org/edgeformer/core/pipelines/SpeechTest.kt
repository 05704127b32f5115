package org.edgeformer.core.pipelines

import kotlin.math.PI
import kotlin.math.sin
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import org.edgeformer.core.decoding.SpeechTask
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.AudioReader
import org.edgeformer.core.preprocess.AudioSource
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/**
 * Audio of tones with a model that recognises which of two it is, for up to a second at once: windows, segments, streams.
 */
class SpeechTest {
    private val bundle = ModelBundle.open(Golden.file("tiny-speech.zip"))
    private val engine = ToneEngine()
    private val transcriber = Transcriber(bundle, engine)

    @Test
    fun `a window of audio is a segment`() {
        val found = transcriber.run(tone(LOW, 0.4) + silence(0.3), TranscribeOptions(timestamps = false))
        assertEquals("low", found.text)
        assertEquals(listOf(0.0 to 0.7), found.segments.map { it.start to it.end })
        assertEquals("en", found.language)
        assertEquals(0.7, found.duration, 1e-9)
        assertEquals(1, found.statistics.windows)
        assertEquals("low".map { it.code }, found.segments[0].tokens)
    }

    @Test
    fun `a recording is read as it is heard`() {
        val audio = tone(LOW, 0.5) + silence(0.3) + tone(HIGH, 0.5)
        val recording = AudioReader(Stereo(audio, transcriber.sampleRate), transcriber.sampleRate)
        assertEquals(transcriber.run(audio).segments, transcriber.run(recording).segments)
        val other = AudioReader(Stereo(audio, 8000), 8000)
        assertThrows(InputError::class.java) { transcriber.run(other) }
    }

    /** Samples as two equal channels. */
    private class Stereo(private val samples: FloatArray, override val sampleRate: Int) : AudioSource {
        override val channels = 2
        private var next = 0

        override fun read(count: Int): FloatArray {
            val frames = minOf(count, samples.size - next)
            return FloatArray(2 * frames) { samples[next + it / 2] }.also { next += frames }
        }

        override fun close() = Unit
    }

    @Test
    fun `long audio is cut in pauses`() {
        val audio = tone(LOW, 0.5) + silence(0.3) + tone(HIGH, 0.5) + silence(0.3) + tone(LOW, 0.2) + silence(0.1)
        var seconds = 0.0
        val found = transcriber.run(audio) { seconds = it }
        assertEquals("low high low", found.text)
        assertEquals(found.duration, seconds, 1e-9)
        val starts = found.segments.map { it.start }
        assertEquals(starts.sorted(), starts)
        assertTrue(starts[1] in 0.5..0.8 && starts[2] in 1.3..1.6, starts.toString())
    }

    @Test
    fun `times within a window`() {
        val found = transcriber.run(silence(0.2) + tone(HIGH, 0.2) + silence(0.3))
        assertEquals(listOf("high"), found.segments.map { it.text })
        // The model says 0.1 to 0.5, and both lie in pauses. A pause is 0.2 s at least and leaves 40 ms of margin.
        assertEquals(0.16 to 0.44, found.segments[0].start to found.segments[0].end)
    }

    @Test
    fun `silence has no text, and nothing neither`() {
        assertEquals("", transcriber.run(silence(5.0)).text)
        assertEquals(0, transcriber.run(silence(5.0)).statistics.windows)
        assertEquals(emptyList<Segment>(), transcriber.run(FloatArray(0)).segments)
    }

    @Test
    fun `a stream guesses first, and settles in a pause`() {
        val stream = transcriber.openStream(
            streamOptions = StreamOptions(
                partialSeconds = 0.3,
                pauseSeconds = 0.3,
                longPauseSeconds = 0.4,
                settledSeconds = 0.5,
            ),
        )
        val updates = ArrayList<StreamUpdate>()
        val audio = silence(0.2) + tone(LOW, 0.4) + silence(0.5) + tone(HIGH, 0.4)
        for (start in audio.indices step 800) {
            updates += stream.feed(audio.copyOfRange(start, minOf(start + 800, audio.size)))
        }
        val before = updates.size
        updates += stream.finish()
        assertTrue(before < updates.size, "the end settles what is left")
        assertEquals(listOf("low", "high"), updates.flatMap { it.final }.map { it.text })
        assertTrue(updates.first().partial == "low" && updates.first().final.isEmpty(), updates.toString())
        assertEquals("", updates.last().partial)
        assertEquals("low high", stream.transcript.text)
        assertEquals(emptyList<StreamUpdate>(), stream.finish())
        assertThrows(InputError::class.java) { stream.feed(FloatArray(1)) }
    }

    @Test
    fun `a guess is stable behind a breath`() {
        val stream = transcriber.openStream()
        val updates = stream.feed(tone(LOW, 0.4) + silence(0.35))
        assertEquals(listOf("low" to "low"), updates.map { it.partial to it.stable })
        assertEquals(emptyList<StreamUpdate>(), stream.feed(silence(0.15)))
    }

    @Test
    fun `two guesses agree in whole words`() {
        assertEquals("", agreed("", "the old"))
        assertEquals("the old", agreed("The old beer.", "the old beard is"))
        assertEquals("The old beer", agreed("the old beer.", "The old beer, which"))
        assertEquals("the", agreed("the old", "the new beer", "the old beer"))
        assertEquals("the old beer", agreed("the", "the old beer is", "the old beer"))
        assertEquals("今天天", agreed("今天天", "今天天气很好"))
        assertEquals("Don't  do", agreed("don't do", "Don't  do it"))
    }

    @Test
    fun `half a second of silence stays behind the audio`() {
        val model = SpeechModel(bundle, engine)
        val (half, whole) = model.spec.buckets
        assertEquals(half, model.bucketFor(0))
        for (samples in listOf(1, RATE / 2, RATE)) assertEquals(whole, model.bucketFor(samples))
        assertThrows(InputError::class.java) { model.bucketFor(RATE + 1) }
    }

    @Test
    fun `what the model cannot do`() {
        for (options in listOf(TranscribeOptions(language = "de"), TranscribeOptions(task = SpeechTask.TRANSLATE))) {
            assertThrows(InputError::class.java) { transcriber.run(tone(LOW, 0.2), options) }
        }
        assertThrows(InputError::class.java) { transcriber.run(FloatArray(8000) { Float.NaN }) }
    }

    @Test
    fun `one decoder stays open`() {
        transcriber.run(tone(LOW, 0.3))
        transcriber.run(tone(LOW, 0.9))
        transcriber.run(tone(LOW, 0.3))
        assertEquals(1, engine.open)
        transcriber.close()
        assertEquals(0, engine.open)
    }

    private fun tone(hertz: Double, seconds: Double) =
        FloatArray((seconds * RATE).toInt()) { (0.3 * sin(2 * PI * hertz * it / RATE)).toFloat() }

    private fun silence(seconds: Double) = FloatArray((seconds * RATE).toInt())
}

private const val RATE = 16000
private const val LOW = 300.0
private const val HIGH = 3000.0

/** Says "low" or "high": in which half of the bands the audio is louder. */
private class ToneEngine : Engine {
    override val name = "tones"
    override val executedBy = "tones"
    var open = 0

    override fun run(program: String, inputs: Map<String, Tensor>) = error("the decoder does it all")

    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder {
        open++
        return ToneDecoder(bucket, spec) { open-- }
    }

    override fun close() = Unit
}

private class ToneDecoder(
    private val bucket: AudioBucket,
    private val spec: Transcription,
    private val closed: () -> Unit,
) : SpeechDecoder {
    override val rows get() = bucket.rows
    override val prefillTokens get() = spec.prefillTokens
    private var word = emptyList<Int>()
    private var script = emptyList<Int>()
    private var prompt = 0

    override fun encode(mel: FloatTensor) {
        val values = mel.toArray()
        val half = values.size / 2
        val isHigh = values.drop(half).sum() > values.take(half).sum()
        word = (if (isHigh) " high" else " low").map { it.code }
    }

    override fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput> {
        script(tokens)
        return output(0) to output(0)
    }

    override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
        if (token == spec.tokens.start) script(listOf(token)) // a prompt of one token
        return output(position + 1 - prompt)
    }

    private fun script(tokens: List<Int>) {
        val first = spec.tokens.firstTimestamp
        val isTimed = spec.tokens.noTimestamps !in tokens
        script = (if (isTimed) listOf(first + 5) + word + (first + 25) else word.drop(1)) + spec.tokens.end
        prompt = tokens.size
    }

    private fun output(said: Int) = DecoderOutput(FloatArray(spec.vocabSize).also { it[script[said]] = 20f })

    override fun close() = closed()
}
