package org.edgeformer.core.engines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.IntTensor
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import org.edgeformer.core.cacheNames
import java.nio.FloatBuffer

/** `Engine.run`. */
typealias Run = (program: String, inputs: Map<String, Tensor>) -> Map<String, Tensor>

/**
 * A [SpeechDecoder] over `Engine.run` whose caches go in as tensors; new rows come out and are written here.
 *
 * The caches lie in direct memory, so an engine that can read it there copies nothing.
 */
class HostStateDecoder(private val run: Run, private val bucket: AudioBucket, private val spec: Transcription) :
    SpeechDecoder {
    override val rows: Int get() = bucket.rows
    override val prefillTokens: Int get() = spec.prefillTokens

    private val size = spec.heads * spec.headDim * bucket.rows
    private var caches: Map<String, FloatTensor> =
        cacheNames(spec.layers, "self").associateWith { FloatTensor.direct(listOf(size)) }
    private var cross: Map<String, Tensor> = emptyMap()
    private var closed = false

    override fun encode(mel: FloatTensor) {
        checkOpen(closed, encoded = true)
        cross = run(bucket.encode, mapOf("mel" to mel))
    }

    override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
        checkOpen(closed, cross.isNotEmpty())
        checkRows(row, 1, rows)
        checkMask(mask, rows)
        val steered = mapOf("token" to ints(token), "position" to ints(position), "mask" to FloatTensor.of(mask, rows))
        val outputs = run(bucket.decode, steered + caches + cross)
        write(row, 1, outputs)
        return DecoderOutput(logitsOf(outputs).toArray())
    }

    override fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput> {
        checkOpen(closed, cross.isNotEmpty())
        val steered = prefillInputs(tokens, position, mask, wanted, spec)
        checkRows(row, tokens.size, rows)
        checkMask(mask, rows)
        val outputs = run(bucket.prefill, steered + caches + cross)
        write(row, tokens.size, outputs)
        return wantedLogits(outputs, spec)
    }

    override fun close() {
        closed = true
        caches = emptyMap()
        cross = emptyMap()
    }

    /** Stores the first `count` of the N tokens of a program's `new_k_<i>` [H, D, N] and `new_v_<i>` [H, N, D]. */
    private fun write(row: Int, count: Int, outputs: Map<String, Tensor>) {
        for (layer in 0 until spec.layers) {
            val keys = floats(outputs, "new_k_$layer")
            val values = floats(outputs, "new_v_$layer")
            writeKeys(keys, caches.getValue("self_k_$layer").data, row, count)
            writeValues(values, caches.getValue("self_v_$layer").data, row, count)
        }
    }

    private fun writeKeys(new: FloatBuffer, keys: FloatBuffer, row: Int, count: Int) {
        val components = spec.heads * spec.headDim
        val fed = new.capacity() / components
        for (component in 0 until components) {
            for (token in 0 until count) keys.put(component * rows + row + token, new.get(component * fed + token))
        }
    }

    private fun writeValues(new: FloatBuffer, values: FloatBuffer, row: Int, count: Int) {
        val fed = new.capacity() / (spec.heads * spec.headDim)
        for (head in 0 until spec.heads) {
            val from = head * fed * spec.headDim
            val to = (head * rows + row) * spec.headDim
            for (index in 0 until count * spec.headDim) values.put(to + index, new.get(from + index))
        }
    }
}

internal fun checkOpen(closed: Boolean, encoded: Boolean) {
    if (closed) throw EngineError("the decoder is closed")
    if (!encoded) throw EngineError("the speech decoder has encoded nothing yet: call encode first")
}

internal fun checkRows(row: Int, count: Int, rows: Int) {
    if (row !in 0..rows - count) {
        throw InputError("expected $count of the cache's slots 0 to ${rows - 1}, found $row to ${row + count - 1}")
    }
}

internal fun checkMask(mask: FloatArray, rows: Int) {
    if (mask.size != rows) throw InputError("mask: expected $rows values, found ${mask.size}")
}

/**
 * What `prefill` takes but for the caches and the rows. Padding repeats the last token, so that its id and its position
 * exist; it comes last, where no token sees it.
 */
internal fun prefillInputs(
    tokens: List<Int>,
    position: Int,
    mask: FloatArray,
    wanted: Pair<Int, Int>,
    spec: Transcription,
): Map<String, Tensor> {
    val size = spec.prefillTokens
    if (tokens.size !in 1..size) throw InputError("prefill: expected 1 to $size tokens, found ${tokens.size}")
    if (wanted.first !in tokens.indices || wanted.second !in tokens.indices) {
        throw InputError("prefill: expected wanted tokens of 0 to ${tokens.size - 1}, found $wanted")
    }
    val indices = IntArray(size) { minOf(it, tokens.size - 1) }
    return mapOf(
        "tokens" to IntTensor.of(IntArray(size) { tokens[indices[it]] }, size),
        "positions" to IntTensor.of(IntArray(size) { position + indices[it] }, size),
        "mask" to FloatTensor.of(mask, mask.size),
        "wanted" to ints(wanted.first, wanted.second),
    )
}

/** The two rows of a prefill's logits (2, V). */
internal fun wantedLogits(outputs: Map<String, Tensor>, spec: Transcription): Pair<DecoderOutput, DecoderOutput> {
    val logits = logitsOf(outputs).toArray()
    val first = logits.copyOfRange(0, spec.vocabSize)
    return DecoderOutput(first) to DecoderOutput(logits.copyOfRange(spec.vocabSize, 2 * spec.vocabSize))
}

/** The engine has checked that logits are float32. */
internal fun logitsOf(outputs: Map<String, Tensor>) = outputs.getValue("logits") as FloatTensor

internal fun ints(vararg values: Int) = IntTensor.of(values, values.size)

private fun floats(outputs: Map<String, Tensor>, name: String) = (outputs.getValue(name) as FloatTensor).data
