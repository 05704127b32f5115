package org.edgeformer.core.engines

import org.edgeformer.core.ByteTensor
import org.edgeformer.core.Case
import org.edgeformer.core.EngineError
import org.edgeformer.core.Expected
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import org.edgeformer.core.Vectors
import kotlin.math.abs

/** Pixels of another decoder may differ by a level or two: a part of what normalised ones span. */
private const val NEAR = 0.05

/**
 * Answers what a bundle's vectors have recorded, and refuses other inputs: for an app's unit tests on the JVM, where no
 * engine runs, and for previews.
 *
 * Of speech every recording is heard as one of its length that was recorded, and the logits are the recorded ones.
 *
 * @throws org.edgeformer.core.BundleError the bundle has no vectors.
 */
class RecordedEngine(bundle: ModelBundle) : CheckedEngine(bundle.manifest.programs) {
    override val name = "recorded"
    override val executedBy = "recorded vectors"
    private val cases = Vectors.read(bundle).cases
    private val hears = bundle.manifest.postprocessing is Transcription
    private var heard: Case? = null

    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> {
        val recorded = cases.filter { it.program == program.name }
        val outputs = when {
            recorded.isEmpty() -> spoken(program, inputs)
            hears -> recorded.first().also { heard = it }.outputs
            else -> recorded.firstOrNull { isNear(it, inputs) }?.outputs
                ?: throw EngineError("${program.name}: these inputs were not recorded")
        }
        // Of speech only parts of the caches were recorded, and nothing here reads them.
        return program.outputs.associate { spec ->
            spec.name to (outputs[spec.name]?.takeIf { it.shape == spec.shape } ?: FloatTensor.direct(spec.shape))
        }
    }

    /** What follows a token: in the row of its place behind the prompt. */
    private fun spoken(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> {
        val case = heard ?: throw EngineError("${program.name}: nothing was heard before")
        val rows = case.outputs.getValue("logits") as FloatTensor
        val (count, width) = rows.shape
        val prompt = (case.expected as Expected.Text).prompt.size
        val position = (inputs["position"] as IntTensor?)?.data?.get(0) ?: (prompt - 1)
        val row = (position + 1 - prompt).coerceIn(0, count - 1)
        val logits = program.outputs.first { it.name == "logits" }
        val values = FloatArray(logits.size) { rows.data.get(row * width + it % width) }
        return mapOf("logits" to FloatTensor.of(values, *logits.shape.toIntArray()))
    }

    private fun isNear(case: Case, inputs: Map<String, Tensor>): Boolean =
        case.inputs.all { (name, tensor) -> isNear(tensor, inputs.getValue(name)) }

    private fun isNear(recorded: Tensor, found: Tensor): Boolean = when (recorded) {
        is IntTensor -> recorded.toArray().contentEquals((found as IntTensor).toArray())
        is FloatTensor -> {
            val values = (found as FloatTensor).toArray()
            recorded.toArray().withIndex().all { (index, value) -> abs(value - values[index]) <= NEAR }
        }
        is ByteTensor -> false
    }

    override fun release() = Unit
}
