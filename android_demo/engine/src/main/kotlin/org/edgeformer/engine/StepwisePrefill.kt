package org.edgeformer.engine

import org.edgeformer.core.InputError
import org.edgeformer.core.engines.DecoderOutput
import org.edgeformer.core.engines.SpeechDecoder

/** A decoder that takes a prompt one token after the other: for runtimes in which `prefill` has a state of its own. */
class StepwisePrefill(private val decoder: SpeechDecoder) : SpeechDecoder by decoder {
    override fun prefill(
        tokens: List<Int>,
        position: Int,
        row: Int,
        mask: FloatArray,
        wanted: Pair<Int, Int>,
    ): Pair<DecoderOutput, DecoderOutput> {
        if (tokens.size !in 1..prefillTokens || wanted.first !in tokens.indices || wanted.second !in tokens.indices) {
            throw InputError("prefill: expected 1 to $prefillTokens tokens, found ${tokens.size} and $wanted wanted")
        }
        val seen = mask.copyOf()
        val outputs = tokens.mapIndexed { index, token ->
            val output = decoder.step(token, position + index, row + index, seen)
            seen[row + index] = 0f // those behind see this token
            output
        }
        return outputs[wanted.first] to outputs[wanted.second]
    }
}
