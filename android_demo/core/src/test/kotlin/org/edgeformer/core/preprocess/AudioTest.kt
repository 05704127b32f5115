package org.edgeformer.core.preprocess

import org.edgeformer.core.ByteTensor
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.edgeformer.core.Json
import org.edgeformer.core.pipelines.nextWindow
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertSame
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.sin

class AudioTest {
    private val cases = Golden.json("log_mel.json")["cases"].list
    private val clips = Golden.tensors("log_mel.safetensors")
    private val silence = Golden.json("silence.json")
    private val wav = Golden.json("wav.json")
    private val wavTensors = Golden.tensors("wav.safetensors")
    private val recordings = Golden.tensors("silence.safetensors")

    @TestFactory
    fun `log-mel as in transformers`() = Golden.tests(cases, { _, case -> case["name"].text }) { index, case ->
        val samples = (clips["$index/samples"] as FloatTensor?)?.toArray() ?: FloatArray(0)
        val expected = (clips.getValue("$index/mel") as FloatTensor).toArray()
        val found = logMel(case).mel(samples, case["frames"].int).toArray()
        assertEquals(expected.size, found.size)
        val worst = expected.indices.maxOf { abs(expected[it] - found[it]) }
        assertTrue(worst <= 1e-4, "differs by $worst")
    }

    @Test
    fun `a Fourier transform of any even size`() {
        for (size in listOf(16, 30, 194, 400)) {
            val samples = DoubleArray(size) { sin(it * it * 0.37) }
            val found = FloatArray(size / 2 + 1).also { Fft(size).power(samples, it) }
            for (bin in found.indices) {
                val real = samples.indices.sumOf { samples[it] * cos(2 * Math.PI * it * bin / size) }
                val imaginary = samples.indices.sumOf { samples[it] * sin(2 * Math.PI * it * bin / size) }
                assertEquals(real * real + imaginary * imaginary, found[bin].toDouble(), 1e-4)
            }
        }
    }

    @Test
    fun `what is far too quiet or too loud`() {
        assertArrayEquals(floatArrayOf(0.25f, -0.5f), leveled(floatArrayOf(0.01f, -0.02f)), 1e-7f)
        assertArrayEquals(floatArrayOf(0.25f, -0.5f), leveled(floatArrayOf(1000f, -2000f)), 1e-7f)
        for (same in listOf(floatArrayOf(), floatArrayOf(0f), floatArrayOf(0.05f), floatArrayOf(-1f))) {
            assertSame(same, leveled(same))
        }
    }

    @Test
    fun `what is no audio`() {
        val case = cases.first()
        assertThrows(InputError::class.java) { logMel(case).mel(FloatArray(16001), 100) }
        assertThrows(InputError::class.java) { logMel(case).mel(FloatArray(10), 101) }
        assertThrows(InputError::class.java) { logMel(case).mel(floatArrayOf(Float.NaN, 1f), 10) }
        assertThrows(InputError::class.java) { readRecorded(ByteArray(100), 16000) }
    }

    @TestFactory
    fun `wav files of all kinds, as mono at another rate`() =
        Golden.tests(wav["cases"].list, { _, case -> case["name"].text }) { index, case ->
            val file = (wavTensors.getValue("$index/file") as ByteTensor).data
            if ("error" in case) {
                val error = assertThrows(InputError::class.java) { read(file, 500) }
                assertTrue(case["error"].text in error.message!!, error.message)
                return@tests
            }
            val expected = (wavTensors["$index/samples"] as FloatTensor?)?.toArray() ?: FloatArray(0)
            for (count in listOf(1, 777, 1 shl 20)) {
                val found = read(file, count)
                assertEquals(expected.size, found.size)
                val worst = expected.indices.maxOfOrNull { abs(expected[it] - found[it]) } ?: 0f
                assertTrue(worst <= case["tolerance"].double, "differs by $worst")
            }
        }

    private fun read(file: ByteArray, count: Int): FloatArray = openWav(file.inputStream(), wav["sample_rate"].int).use {
        generateSequence { it.read(count) }.takeWhile { block -> block.isNotEmpty() }.flatMap(FloatArray::asSequence)
            .toList().toFloatArray()
    }

    @TestFactory
    fun pauses() = Golden.tests(silence["cases"].list, { _, case -> case["name"].text }) { index, case ->
        val rate = silence["sample_rate"].int
        val levels = recordings.getValue("$index/samples") as ByteTensor
        val gain = case["gain"].double.toFloat()
        val samples = FloatArray(levels.size) { ((levels.data[it].toInt() and 0xFF) - 128) / 128f * gain }
        val heard = Silence(rate)
        assertEquals(case["silent"].boolean, heard.isSilent(samples))
        for (pauses in case["pauses"].list) {
            val options = PauseOptions(pauses["min_pause_seconds"].double, pauses["margin_seconds"].double)
            val found = heard.speechRanges(samples, options).map { listOf(it.first, it.last + 1) }
            assertEquals(pauses["ranges"].list.map { it.ints }, found)
        }
        for ((earliest, latest, cut) in case["cuts"].list.map { it.ints }) {
            assertEquals(cut, heard.quietestCut(samples, earliest, latest))
        }
        assertEquals(case["windows"].list.map { it.list[0].int to it.list[1].boolean }, windows(samples, rate, heard))
    }

    private fun windows(samples: FloatArray, rate: Int, heard: Silence): List<Pair<Int, Boolean>> {
        val longest = silence["longest"].int
        val found = ArrayList<Pair<Int, Boolean>>()
        var rest = samples
        while (rest.isNotEmpty()) {
            val window = nextWindow(rest.copyOf(minOf(rest.size, longest + 1)), longest, rate, heard)
            found.add(window.end to window.hasSpeech)
            rest = rest.copyOfRange(window.end, rest.size)
        }
        return found
    }

    private fun logMel(case: Json): LogMel {
        val spec = case["preprocessing"].read { fields -> fields.skip("kind").let { AudioPreprocessing.read(fields) } }
        return LogMel(spec, clips.getValue("mel_filters") as FloatTensor)
    }
}
