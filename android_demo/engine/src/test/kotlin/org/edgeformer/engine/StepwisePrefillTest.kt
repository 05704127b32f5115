package org.edgeformer.engine

import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.SpeechDecoder
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

private const val HIDDEN = -1000f

/** Its logits say what a token sees: its position, and the tokens of the rows that the mask leaves, in their order. */
private class SeeingDecoder : SpeechDecoder {
    override val rows = 8
    override val prefillTokens = 4
    val fed = IntArray(rows)

    override fun encode(mel: FloatTensor) = Unit

    override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
        fed[row] = token
        val seen = (0 until rows).filter { mask[it] == 0f || it == row }.map { fed[it].toFloat() }
        return DecoderOutput((listOf(position.toFloat()) + seen).toFloatArray())
    }

    override fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput> = throw UnsupportedOperationException("its state would be another")

    override fun close() = Unit
}

class StepwisePrefillTest {
    private val inner = SeeingDecoder()
    private val decoder = StepwisePrefill(inner)
    private val hidden = FloatArray(inner.rows) { HIDDEN }

    @Test
    fun `each token sees those before it, and the rows of the mask`() {
        inner.step(7, position = 0, row = 0, mask = hidden)
        val mask = hidden.copyOf().also { it[0] = 0f }
        val (first, last) = decoder.prefill(listOf(11, 12, 13), position = 1, row = 1, mask = mask, wanted = 0 to 2)
        assertContentEquals(floatArrayOf(1f, 7f, 11f), first.logits)
        assertContentEquals(floatArrayOf(3f, 7f, 11f, 12f, 13f), last.logits)
        assertEquals(listOf(7, 11, 12, 13), inner.fed.take(4))
        assertEquals(HIDDEN, mask[1], "the caller's mask stays as it is")
    }

    @Test
    fun `refuses what prefill refuses`() {
        for (tokens in listOf(emptyList(), List(5) { it })) {
            assertFailsWith<InputError> { decoder.prefill(tokens, 0, 0, hidden, 0 to 0) }
        }
        assertFailsWith<InputError> { decoder.prefill(listOf(1, 2), 0, 0, hidden, 0 to 2) }
    }
}
