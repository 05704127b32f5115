package org.edgeformer.core.engines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.IntTensor
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription

/**
 * A [SpeechDecoder] over programs that keep their self-attention cache between calls and write the rows that they are
 * told to.
 *
 * The state belongs to whatever `run` is bound to: an engine gives each decoder a loaded file of its own.
 *
 * @param release called once, when the decoder is closed.
 */
class ProgramStateDecoder(
    private val run: Run,
    private val bucket: AudioBucket,
    private val spec: Transcription,
    private val release: () -> Unit = {},
) : SpeechDecoder {
    override val rows: Int get() = bucket.rows
    override val prefillTokens: Int get() = spec.prefillTokens

    private var cross: Map<String, Tensor> = emptyMap()
    private var closed = false

    /** The rows of what was fed before are hidden by the masks to come. */
    override fun encode(mel: FloatTensor) {
        checkOpen(closed, encoded = true)
        cross = run(bucket.encode, mapOf("mel" to mel))
    }

    override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
        checkOpen(closed, cross.isNotEmpty())
        checkRows(row, 1, rows)
        checkMask(mask, rows)
        val steered = mapOf(
            "token" to ints(token),
            "position" to ints(position),
            "row" to ints(row),
            "mask" to FloatTensor.of(mask, rows),
        )
        return DecoderOutput(logitsOf(run(bucket.decode, steered + cross)).toArray())
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
        // Rows beyond the last one go nowhere, so padding corrupts no row of another hypothesis.
        val fed = IntArray(prefillTokens) { if (it < tokens.size) row + it else rows }
        val outputs = run(bucket.prefill, steered + ("rows" to IntTensor.of(fed, prefillTokens)) + cross)
        return wantedLogits(outputs, spec)
    }

    override fun close() {
        if (closed) return
        closed = true
        cross = emptyMap()
        release()
    }
}
