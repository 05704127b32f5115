package org.edgeformer.core

import java.io.Closeable
import org.edgeformer.core.decoding.SEEN
import org.edgeformer.core.decoding.hiddenRows
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.pipelines.Transcriber
import org.edgeformer.core.preprocess.readRecorded

/** Of values around -1 to 2: what another FFT and another order of float32 sums may change. */
private const val MEL_TOLERANCE = 1e-3

/**
 * Replays a speech bundle's cases: the stages "mel", "encode", "steps", where the recorded tokens are fed whatever the
 * bundle would say itself, and "text", where it answers freely. A step that diverges is named.
 */
internal class SpeechReplay(
    private val bundle: ModelBundle,
    engine: Engine,
    private val tolerances: Tolerances,
    cases: List<Case>,
) : Replay, Closeable {
    private val scales = Scales(cases.flatMap(::comparedOutputs))
    private val transcriber = Transcriber(bundle, engine)
    private val mel = ArrayList<Comparison>()
    private val encode = ArrayList<Comparison>()
    private val steps = ArrayList<List<Comparison>>()
    private val text = ArrayList<Comparison>()

    override fun play(case: Case) {
        val bucket = transcriber.spec.buckets.first { it.encode == case.program }
        val samples: FloatArray
        val spectrogram: FloatTensor
        try {
            samples = read(case)
            spectrogram = transcriber.mel(samples, bucket)
        } catch (error: InputError) {
            throw BundleError("$CASES_FILE: the input ${shorten(case.raw)} cannot be used: ${error.message}", error)
        }
        mel.add(compare(sampled(spectrogram.toArray()), case.inputs.getValue("mel"), MEL_TOLERANCE))
        encode.add(compareEncoded(case, spectrogram))
        steps.add(compareSteps(case, bucket, spectrogram))
        text.add(compareText(case, bucket, samples))
    }

    override fun comparisons(): Map<String, List<Comparison>> {
        val wrong = steps.flatMap { found -> found.indices.filter { !found[it].ok } }.minOrNull()
        val name = if (wrong == null) "steps" else "step $wrong"
        return linkedMapOf("mel" to mel, "encode" to encode, name to steps.flatten(), "text" to text)
    }

    override fun close() = transcriber.close()

    private fun read(case: Case): FloatArray {
        val count = case.raw.getValue("samples") as Int
        val samples = readRecorded(bundle.readBytes(case.raw.getValue("audio") as String), transcriber.sampleRate)
        if (samples.size < count) throw InputError("expected $count samples, found ${samples.size}")
        return samples.copyOf(count)
    }

    private fun compareEncoded(case: Case, spectrogram: FloatTensor): Comparison {
        val references = case.outputs.filterKeys { it != "logits" }
        val outputs = try {
            transcriber.engine.run(case.program, mapOf("mel" to spectrogram))
        } catch (error: EngineError) {
            return Comparison.failed(references.keys.maxOf { scales.limit(it, tolerances.output) }, error)
        }
        return Comparison.worst(
            references.map { (name, reference) ->
                val values = sampled((outputs.getValue(name) as FloatTensor).toArray())
                val found = doubles(FloatTensor.of(values, values.size))
                scales.compare(name, found, doubles(reference), tolerances.output)
            },
        )
    }

    /** One comparison per step; what all logits have in common changes no probability. */
    private fun compareSteps(case: Case, bucket: AudioBucket, spectrogram: FloatTensor): List<Comparison> {
        val expected = case.expected as Expected.Text
        val rows = rowsOf(case.outputs.getValue("logits") as FloatTensor)
        val found = ArrayList<Comparison>()
        try {
            feedAll(transcriber.decoder(bucket), spectrogram, expected) { logits ->
                found.add(scales.compare("logits", centered(sampled(logits)), rows[found.size], tolerances.output))
            }
        } catch (error: EngineError) {
            found.add(Comparison.failed(scales.limit("logits", tolerances.output), error))
        }
        return found
    }

    /** Letters that differ, as a fraction of the reference's; one too many in an empty answer is all of them. */
    private fun compareText(case: Case, bucket: AudioBucket, samples: FloatArray): Comparison {
        val reference = letters((case.expected as Expected.Text).text)
        val answer = try {
            letters(transcriber.plainText(samples, bucket))
        } catch (error: EngineError) {
            return Comparison.failed(tolerances.score, error)
        }
        val share = editDistance(answer, reference).toDouble() / maxOf(reference.length, 1)
        return Comparison(share, null, tolerances.score, share <= tolerances.score)
    }
}

/**
 * Encodes, feeds the prompt and then the recorded tokens one by one, and shows the logits before each and at the end.
 */
private fun feedAll(decoder: SpeechDecoder, spectrogram: FloatTensor, expected: Expected.Text, show: (FloatArray) -> Unit) {
    decoder.encode(spectrogram)
    val mask = hiddenRows(decoder.rows)
    val last = expected.prompt.size - 1
    show(decoder.prefill(expected.prompt, 0, 0, mask, last to last).second.logits)
    mask.fill(SEEN, 0, expected.prompt.size)
    expected.tokens.forEachIndexed { index, token ->
        val position = expected.prompt.size + index
        show(decoder.step(token, position, position, mask).logits)
        mask[position] = SEEN
    }
}

private fun compare(found: FloatArray, reference: Tensor, tolerance: Double): Comparison =
    Comparison.of(FloatTensor.of(found, found.size), reference, tolerance)

/** A case's outputs as they are compared: logits row by row. */
private fun comparedOutputs(case: Case): List<Map<String, DoubleArray>> =
    rowsOf(case.outputs.getValue("logits") as FloatTensor).map { mapOf("logits" to it) } +
        (case.outputs - "logits").mapValues { (_, tensor) -> doubles(tensor) }

/** The rows of logits (steps, values), each less its mean. */
private fun rowsOf(logits: FloatTensor): List<DoubleArray> {
    val width = logits.shape[1]
    val values = logits.toArray()
    return List(logits.shape[0]) { centered(values.copyOfRange(it * width, (it + 1) * width)) }
}

private fun centered(logits: FloatArray): DoubleArray {
    val mean = logits.sumOf { it.toDouble() } / logits.size
    return DoubleArray(logits.size) { logits[it] - mean }
}

/** The letters and digits of a text in lower case: a comma more or less is no other answer. */
internal fun letters(text: String): String = text.filter { it.isLetterOrDigit() }.lowercase()

/** How many characters have to be changed, put in or taken out (Levenshtein 1966). */
internal fun editDistance(found: String, reference: String): Int {
    var row = IntArray(reference.length + 1) { it }
    for (i in 1..found.length) {
        val above = row
        row = IntArray(above.size)
        row[0] = i
        for (j in 1..reference.length) {
            val changed = above[j - 1] + if (found[i - 1] == reference[j - 1]) 0 else 1
            row[j] = minOf(above[j] + 1, row[j - 1] + 1, changed)
        }
    }
    return row[reference.length]
}
