package org.edgeformer.core.pipelines

import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Tensor
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.Places

/**
 * A program and its inputs for one raw input, or for a window of it.
 *
 * @property truncated the raw input lost its end.
 * @property places where its tokens stand in the raw input, of tasks that answer with places.
 * @property source the text that answers are places of, or the label that this text stands for.
 */
class Prepared(
    val program: String,
    val inputs: Map<String, Tensor>,
    val truncated: Boolean,
    val places: Places? = null,
    val source: String? = null,
)

/**
 * Answers each raw input with one run of one program, or one for each of its windows: prepare, run, answer. Calls from
 * several threads are safe, and take turns where the engine runs. Engine and bundle stay the caller's to close.
 */
abstract class ProgramPipeline<Raw, Answer>(val bundle: ModelBundle, val engine: Engine) {
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

    /** The runs that one raw input takes: one, or more of a task that reads it in windows. Errors as [prepare]. */
    open fun windows(raw: Raw): List<Prepared> = listOf(prepare(raw))

    /** The answer in the outputs of all windows, without statistics; see [answer]. */
    open fun answerWindows(outputs: List<Map<String, Tensor>>, windows: List<Prepared>): Answer =
        answer(outputs.single(), windows.single())

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
    fun run(raw: Raw): Answer = timed(raw, take = ::answerWindows)

    /** [run] with other windows, or another way from their outputs to the answer. */
    protected fun timed(
        raw: Raw,
        divide: (Raw) -> List<Prepared> = ::windows,
        take: (List<Map<String, Tensor>>, List<Prepared>) -> Answer,
    ): Answer {
        val start = System.nanoTime()
        val windows = divide(raw)
        val ready = System.nanoTime()
        val outputs = windows.map { engine.run(it.program, it.inputs) }
        val done = System.nanoTime()
        val answer = take(outputs, windows)
        val end = System.nanoTime()
        return withStatistics(answer, Statistics((ready - start) / 1e6, (done - ready) / 1e6, (end - done) / 1e6))
    }
}
