package org.edgeformer.core.engines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import java.io.Closeable

/** Opens a bundle's model files and runs the programs in them. Calls from several threads take turns. */
interface Engine : Closeable {
    /** The target that it runs: "litert", "onnx", "executorch". */
    val name: String

    /** What really executes the programs, with its version: "onnxruntime 1.20.0". */
    val executedBy: String

    /** What an answer of this engine cannot show about the target, in a sentence; null for the target's own engine. */
    val notCovered: String? get() = null

    /**
     * Runs one program.
     *
     * @param program a program's name in the manifest.
     * @param inputs one tensor per input of the program, with the dtype and shape that the manifest states.
     * @return one tensor per output of the program, by name, which the caller owns.
     * @throws org.edgeformer.core.InputError an unknown program, or other inputs than the manifest states.
     * @throws org.edgeformer.core.EngineError the engine is closed, failed, or gave other outputs.
     */
    fun run(program: String, inputs: Map<String, Tensor>): Map<String, Tensor>

    /**
     * A speech decoder over a bucket's three programs, with caches of its own.
     *
     * Several may be open at once, and each holds the caches of its bucket: close those that are not needed. None works
     * after the engine is closed.
     */
    fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder

    /** Releases the model. A second call does nothing. */
    override fun close()
}
