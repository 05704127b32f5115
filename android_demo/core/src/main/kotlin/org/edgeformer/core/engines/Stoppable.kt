package org.edgeformer.core.engines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription

/** An engine that asks before each program whether to go on: what `goOn` throws ends the work. */
internal class StoppableEngine(private val engine: Engine, private val goOn: () -> Unit) : Engine by engine {
    override fun run(program: String, inputs: Map<String, Tensor>): Map<String, Tensor> {
        goOn()
        return engine.run(program, inputs)
    }

    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder {
        val decoder = engine.openDecoder(bucket, spec)
        return object : SpeechDecoder by decoder {
            override fun encode(mel: FloatTensor) {
                goOn()
                decoder.encode(mel)
            }

            override fun step(token: Int, position: Int, row: Int, mask: FloatArray): DecoderOutput {
                goOn()
                return decoder.step(token, position, row, mask)
            }

            override fun prefill(
                tokens: List<Int>,
                position: Int,
                row: Int,
                mask: FloatArray,
                wanted: Pair<Int, Int>,
            ): Pair<DecoderOutput, DecoderOutput> {
                goOn()
                return decoder.prefill(tokens, position, row, mask, wanted)
            }
        }
    }
}
