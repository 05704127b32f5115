package org.edgeformer.engine

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File
import org.edgeformer.core.ByteTensor
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.IntTensor
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Tensor
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.Transcription
import org.edgeformer.core.engines.CheckedEngine
import org.edgeformer.core.engines.withoutPadding

/**
 * ONNX Runtime on the CPU: a `.onnx` file for each program, or one for all lengths of a text.
 *
 * A bundle of one file is read where it is mapped into memory, in an APK too. Several share their weights in one that
 * ONNX Runtime looks for beside the model, so these are opened by their paths.
 */
class OnnxEngine(private val bundle: ModelBundle, private val cache: File, threads: Int) :
    CheckedEngine(bundle.manifest.programs) {
    override val name = "onnx"

    private val environment = OrtEnvironment.getEnvironment().apply { setTelemetry(false) }
    private val options = OrtSession.SessionOptions().apply {
        setIntraOpNumThreads(threads)
        setInterOpNumThreads(1)
        setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
        // Without VNNI, x86's sums of 8-bit products end in 16 bits and saturate: the emulator's answers would differ.
        addConfigEntry("session.x64quantprecision", "1")
    }
    private val sessions = HashMap<String, OrtSession>()
    private val anyLength = HashSet<String>()

    override val executedBy = "onnxruntime ${environment.version}"

    init {
        // Each session has its own copy of the weights: those of a speech model are opened when they are first needed.
        if (bundle.manifest.postprocessing !is Transcription) orClosed { programs.values.forEach(::session) }
    }

    /** Outputs are written where they stay: caches of speech go in again, token for token, without a copy. */
    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> {
        val outputs = program.outputs.associate { it.name to zeros(it) }
        val opened = ArrayList<OnnxTensor>()
        try {
            val session = session(program)
            val needed = if (program.file in anyLength) withoutPadding(inputs) else inputs
            val given = needed.mapValues { (_, tensor) -> toOnnx(tensor).also(opened::add) }
            val written = outputs.mapValues { (_, tensor) -> toOnnx(tensor).also(opened::add) }
            session.run(given, written).close()
            return outputs
        } finally {
            opened.forEach(OnnxTensor::close)
        }
    }

    override fun release() {
        sessions.values.forEach(OrtSession::close)
        sessions.clear()
        options.close()
    }

    /** The session of a program, opened if it is not yet. */
    private fun session(program: ProgramSpec): OrtSession = sessions.getOrPut(program.file) {
        val opened = try {
            if (programs.values.all { it.file == program.file }) {
                environment.createSession(bundle.map(program.file), options)
            } else {
                environment.createSession(bundle.folderWith(program.file, cache).path, options)
            }
        } catch (error: OrtException) {
            throw cannotOpen(program.file, error)
        }
        compareNames(program, opened.inputNames + opened.outputNames)
        if (opened.inputInfo.hasSymbol() && !opened.outputInfo.hasSymbol()) anyLength += program.file
        opened
    }

    private fun toOnnx(tensor: Tensor): OnnxTensor {
        val shape = LongArray(tensor.shape.size) { tensor.shape[it].toLong() }
        return when (tensor) {
            is FloatTensor -> OnnxTensor.createTensor(environment, tensor.data.fromStart(), shape)
            is IntTensor -> OnnxTensor.createTensor(environment, tensor.data.fromStart(), shape)
            is ByteTensor -> throw EngineError("no program takes ${tensor.dtype}")
        }
    }

    private fun zeros(spec: TensorSpec): Tensor =
        if (spec.dtype == "int32") IntTensor.direct(spec.shape) else FloatTensor.direct(spec.shape)
}

/** Whether a size is symbolic: the length of the inputs. Without one in the outputs, what is left of padding cannot be missed. */
private fun Map<String, NodeInfo>.hasSymbol() = values.any { node -> (node.info as TensorInfo).shape.any { it < 0 } }
