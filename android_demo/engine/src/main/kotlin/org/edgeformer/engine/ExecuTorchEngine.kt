package org.edgeformer.engine

import java.io.File
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.ByteTensor
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.State
import org.edgeformer.core.Tensor
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.Transcription
import org.edgeformer.core.engines.CheckedEngine
import org.edgeformer.core.engines.ProgramStateDecoder
import org.edgeformer.core.engines.SpeechDecoder
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor as TorchTensor

/** ExecuTorch on the CPU through XNNPACK: one method of a `.pte` per program. */
class ExecuTorchEngine(private val bundle: ModelBundle, private val cache: File, private val threads: Int) :
    CheckedEngine(bundle.manifest.programs) {
    override val name = "executorch"
    override val executedBy = "executorch"

    private val modules = openAll()

    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>) = call(modules, program, inputs)

    /**
     * Programs with state are loaded anew for each decoder, state and all. Methods of a loaded file share no memory in
     * the Java API, so the prompt is fed to `decode` token by token, not to `prefill`, whose state would be another.
     */
    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder {
        if (spec.state == State.HOST) return super.openDecoder(bucket, spec)
        val own = openAll()
        val run = { name: String, inputs: Map<String, Tensor> ->
            running(name) { call(own, programs.getValue(name), inputs) }
        }
        return StepwisePrefill(ProgramStateDecoder(run, bucket, spec) { own.values.forEach(Module::destroy) })
    }

    override fun release() = modules.values.forEach(Module::destroy)

    /** Every file, with the methods that the manifest declares. */
    private fun openAll(): Map<String, Module> {
        val opened = HashMap<String, Module>()
        for (program in programs.values) {
            val module = opened.getOrPut(program.file) {
                try {
                    Module.load(bundle.folderWith(program.file, cache).path, Module.LOAD_MODE_MMAP, threads)
                } catch (error: RuntimeException) {
                    opened.values.forEach(Module::destroy)
                    throw cannotOpen(program.file, error)
                }
            }
            if (program.entry !in module.getMethods()) {
                opened.values.forEach(Module::destroy)
                throw EngineError("${program.file} has no method ${program.entry}: convert the bundle again")
            }
        }
        return opened
    }

    private fun call(
        loaded: Map<String, Module>,
        program: ProgramSpec,
        inputs: Map<String, Tensor>,
    ): Map<String, Tensor> {
        val arguments = Array(program.inputs.size) { EValue.from(toTorch(inputs.getValue(program.inputs[it].name))) }
        val results = loaded.getValue(program.file).execute(program.entry, *arguments)
        return program.outputs.zip(results) { spec, value -> spec.name to fromTorch(value.toTensor(), spec) }.toMap()
    }

    private fun toTorch(tensor: Tensor): TorchTensor {
        val shape = LongArray(tensor.shape.size) { tensor.shape[it].toLong() }
        return when (tensor) {
            is FloatTensor ->
                if (tensor.data.isDirect) TorchTensor.fromBlob(tensor.data.fromStart(), shape)
                else TorchTensor.fromBlob(tensor.toArray(), shape)
            is IntTensor -> TorchTensor.fromBlob(tensor.toArray(), shape)
            is ByteTensor -> throw EngineError("no program takes ${tensor.dtype}")
        }
    }

    /** A copy, as the next call overwrites the method's own memory; direct, so that it goes in again without another. */
    private fun fromTorch(tensor: TorchTensor, spec: TensorSpec): Tensor {
        val shape = tensor.shape().map { it.toInt() }
        return if (spec.dtype == "int32") {
            IntTensor.direct(shape).apply { data.fromStart().put(tensor.dataAsIntArray) }
        } else {
            FloatTensor.direct(shape).apply { data.fromStart().put(tensor.dataAsFloatArray) }
        }
    }
}
