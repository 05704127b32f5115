package org.edgeformer.engine

import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.TensorBuffer
import org.edgeformer.core.ByteTensor
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Tensor
import org.edgeformer.core.TensorSpec
import java.io.Closeable

/**
 * A signature with the memory that it reads and writes, which lives on from run to run.
 *
 * @throws com.google.ai.edge.litert.LiteRtException the model has no such signature, or not these tensors.
 */
internal class LiteRtBuffers(private val model: CompiledModel, private val program: ProgramSpec) : Closeable {
    private val inputs = program.inputs.associate { it.name to model.createInputBuffer(it.name, program.entry) }
    private val outputs = program.outputs.associate { it.name to model.createOutputBuffer(it.name, program.entry) }

    /** Run on tensors, of which those named in `unchanged` are as they were at the last run. The outputs are copies. */
    fun run(values: Map<String, Tensor>, unchanged: Set<String> = emptySet()): Map<String, Tensor> {
        for ((name, buffer) in inputs) if (name !in unchanged) write(buffer, values.getValue(name))
        model.run(inputs, outputs, program.entry)
        return program.outputs.associate { it.name to read(outputs.getValue(it.name), it) }
    }

    override fun close() {
        inputs.values.forEach(TensorBuffer::close)
        outputs.values.forEach(TensorBuffer::close)
    }

    private fun write(buffer: TensorBuffer, tensor: Tensor) = when (tensor) {
        is FloatTensor -> buffer.writeFloat(tensor.toArray())
        is IntTensor -> buffer.writeInt(tensor.toArray())
        is ByteTensor -> throw EngineError("no program takes ${tensor.dtype}")
    }

    private fun read(buffer: TensorBuffer, spec: TensorSpec): Tensor {
        val shape = spec.shape.toIntArray()
        return when (spec.dtype) {
            "int32" -> IntTensor.of(buffer.readInt(), *shape)
            else -> FloatTensor.of(buffer.readFloat(), *shape)
        }
    }
}
