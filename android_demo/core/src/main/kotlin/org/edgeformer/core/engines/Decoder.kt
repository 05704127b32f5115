package org.edgeformer.core.engines

import org.edgeformer.core.FloatTensor
import java.io.Closeable

/** What follows a token: logits (V), the caller's to change. */
class DecoderOutput(val logits: FloatArray)

/**
 * One bucket's programs with their caches. Not for several threads at once.
 *
 * The self-attention cache has L rows, each of which holds one token that was fed. A hypothesis is the set of rows that
 * its tokens lie in: a mask (L) holds 0 for these and a large negative number for all others. Greedy decoding uses
 * row = position.
 */
interface SpeechDecoder : Closeable {
    /** L. */
    val rows: Int

    /** P, the most tokens that [prefill] takes. */
    val prefillTokens: Int

    /** Transcribes a recording, (1, n_mels, 2 T); everything fed before is forgotten. */
    fun encode(mel: FloatTensor)

    /** Feeds one token, written to `row`; it sees the rows of `mask` and itself. */
    fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput

    /**
     * Feeds up to P tokens at once: the first at `position` into `row`, the others right behind it. Each sees the rows
     * of `mask`, those before it in this call, and itself.
     *
     * @return what follows the tokens number `wanted.first` and `wanted.second` of this call.
     */
    fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput>

    /** Releases the caches. A second call does nothing. */
    override fun close()
}
