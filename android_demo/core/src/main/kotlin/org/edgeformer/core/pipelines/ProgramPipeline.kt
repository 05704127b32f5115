package org.edgeformer.core.pipelines

import org.edgeformer.core.Bundle
import org.edgeformer.core.InputError
import org.edgeformer.core.Tensor
import org.edgeformer.core.engines.Engine

/**
 * A program and its inputs for one raw input.
 *
 * @property truncated the raw input lost its end.
 */
class Prepared(val program: String, val inputs: Map<String, Tensor>, val truncated: Boolean)

/**
 * Answers each raw input with one run of one program: prepare, run, answer. Calls from several threads are safe, and
 * take turns where the engine runs. Engine and bundle stay the caller's to close.
 */
abstract class ProgramPipeline<Raw, Answer>(val bundle: Bundle, val engine: Engine) {
    /**
     * Preprocesses one raw input and chooses the program for it.
     *
     * @throws InputError the input cannot be used.
     */
    abstract fun prepare(raw: Raw): Prepared

    /**
     * The answer in a program's outputs, without statistics.
     *
     * @throws org.edgeformer.core.EngineError the outputs hold NaN or infinity.
     */
    abstract fun answer(outputs: Map<String, Tensor>, prepared: Prepared): Answer

    /** A raw input from the form in which vectors store it. */
    internal abstract fun rawFromJson(stored: Map<String, Any?>): Raw

    /** An answer with what it cost. */
    protected abstract fun withStatistics(answer: Answer, statistics: Statistics): Answer

    /**
     * Answers one raw input.
     *
     * @throws InputError the input cannot be used.
     * @throws org.edgeformer.core.EngineError the model failed, or gave NaN or infinity.
     */
    fun run(raw: Raw): Answer {
        val start = System.nanoTime()
        val prepared = prepare(raw)
        val ready = System.nanoTime()
        val outputs = engine.run(prepared.program, prepared.inputs)
        val done = System.nanoTime()
        val answer = answer(outputs, prepared)
        val end = System.nanoTime()
        return withStatistics(answer, Statistics((ready - start) / 1e6, (done - ready) / 1e6, (end - done) / 1e6))
    }
}
