package org.edgeformer.core.engines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.EdgeFormerError
import org.edgeformer.core.EngineError
import org.edgeformer.core.InputError
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.State
import org.edgeformer.core.Tensor
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.Transcription
import org.edgeformer.core.models.Rows
import org.edgeformer.core.shorten

/**
 * An [Engine] but for the execution itself: inputs and outputs are checked against the manifest, one run happens at a
 * time, and whatever the library throws becomes an [EngineError].
 */
abstract class CheckedEngine(programs: List<ProgramSpec>) : Engine {
    /** By name. */
    protected val programs: Map<String, ProgramSpec> = programs.associateBy { it.name }

    /** What an input's numbers must be below, as `checkModelFiles` found it. */
    var rows: Rows = emptyMap()

    private val lock = Any()
    private var closed = false

    /** Runs a program on inputs that are exactly what it declares; the outputs are copies. Called under a lock. */
    protected abstract fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor>

    /** Lets go of the model. Called once, under the lock. */
    protected abstract fun release()

    final override fun run(program: String, inputs: Map<String, Tensor>): Map<String, Tensor> {
        val spec = checkInputs(programs, program, inputs)
        checkRows(program, inputs)
        return checkOutputs(spec, running(spec.name) { execute(spec, inputs) })
    }

    private fun checkRows(program: String, inputs: Map<String, Tensor>) {
        for ((name, count) in rows[program].orEmpty()) {
            val wrong = (inputs[name] as? IntTensor)?.toArray()?.firstOrNull { it !in 0 until count } ?: continue
            throw InputError(
                "$program: $name: expected numbers from 0 to ${count - 1}, which is what the model has rows for, " +
                    "found $wrong",
            )
        }
    }

    /** One run at a time, none after the end, and the library's errors in our words. */
    protected fun <T> running(program: String, work: () -> T): T = synchronized(lock) {
        if (closed) throw EngineError("the $name engine is closed")
        try {
            work()
        } catch (error: EdgeFormerError) {
            throw error
        } catch (error: Exception) {
            throw EngineError("$executedBy failed to run $program: ${shorten(error.message, 200)}", error)
        }
    }

    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder =
        when (spec.state) {
            State.HOST -> HostStateDecoder(::run, bucket, spec)
            State.PROGRAM -> ProgramStateDecoder(::run, bucket, spec)
        }

    final override fun close() = synchronized(lock) {
        if (!closed) {
            closed = true
            release()
        }
    }
}

/**
 * The program of that name, if the inputs are exactly what it declares.
 *
 * @throws InputError an unknown program, or an input that is missing, superfluous or of another dtype or shape.
 */
internal fun checkInputs(programs: Map<String, ProgramSpec>, name: String, inputs: Map<String, Tensor>): ProgramSpec {
    val program = programs[name]
        ?: throw InputError("unknown program ${shorten(name)}: expected one of ${programs.keys.joinToString(", ")}")
    val declared = program.inputs.map { it.name }
    if (inputs.keys != declared.toSet()) {
        val found = inputs.keys.sorted().joinToString(", ")
        throw InputError("$name: expected the inputs ${declared.joinToString(", ")}, found $found")
    }
    for (spec in program.inputs) {
        val found = inputs.getValue(spec.name)
        if (!fits(found, spec)) {
            throw InputError("$name: ${spec.name}: expected ${shown(spec)}, found ${found.dtype} ${found.shape}")
        }
    }
    return program
}

/**
 * The outputs in the manifest's order, if the model gave what the manifest declares.
 *
 * @throws EngineError the model and the manifest disagree.
 */
internal fun checkOutputs(program: ProgramSpec, outputs: Map<String, Tensor>): Map<String, Tensor> {
    for (spec in program.outputs) {
        val found = outputs[spec.name]
        if (found == null || !fits(found, spec)) {
            val shown = if (found == null) "nothing" else "${found.dtype} ${found.shape}"
            throw EngineError(
                "${program.name}: the manifest declares the output ${spec.name} as ${shown(spec)}, the model gave " +
                    "$shown: convert the bundle again",
            )
        }
    }
    return program.outputs.associate { it.name to outputs.getValue(it.name) }
}

private fun fits(tensor: Tensor, spec: TensorSpec) = tensor.dtype == spec.dtype && tensor.shape == spec.shape

private fun shown(spec: TensorSpec) = "${spec.dtype} ${spec.shape}"

/** Positions of the shortest text of a file with a symbolic length. */
private const val SHORTEST_TEXT = 2

/** The inputs of a text, (1, S) each, up to the last position that its mask does not hide. */
fun withoutPadding(inputs: Map<String, Tensor>): Map<String, Tensor> {
    val mask = inputs["attention_mask"] as? IntTensor ?: return inputs
    val last = (0 until mask.size).lastOrNull { mask.data.get(it) != 0 } ?: return inputs
    val length = maxOf(last + 1, SHORTEST_TEXT)
    return inputs.mapValues { (_, tensor) ->
        val values = (tensor as IntTensor).data
        IntTensor.of(IntArray(length, values::get), 1, length)
    }
}
