package org.edgeformer.engine

import android.os.Build
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.LiteRtException
import java.io.File
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.EngineError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.State
import org.edgeformer.core.Tensor
import org.edgeformer.core.Transcription
import org.edgeformer.core.cacheNames
import org.edgeformer.core.engines.CheckedEngine
import org.edgeformer.core.engines.HostStateDecoder
import org.edgeformer.core.engines.SpeechDecoder

/** LiteRT's `CompiledModel` on the CPU through XNNPACK: one signature of a `.tflite` per program. */
class LiteRtEngine(private val bundle: ModelBundle, private val cache: File, private val threads: Int) :
    CheckedEngine(bundle.manifest.programs) {
    override val name = "litert"
    override val executedBy = "litert"

    private val models = HashMap<String, CompiledModel>()
    private val buffers = HashMap<String, LiteRtBuffers>()

    init {
        orClosed {
            for (program in programs.values) {
                open(program.file)
                // Those of speech belong to its decoders, and are made with them.
                if (bundle.manifest.postprocessing !is Transcription) buffers[program.name] = makeBuffers(program)
            }
        }
    }

    override fun execute(program: ProgramSpec, inputs: Map<String, Tensor>): Map<String, Tensor> =
        buffers.getOrPut(program.name) { makeBuffers(program) }.run(inputs)

    /** A decoder with buffers of its own. What the audio gave is written into them once, not for each token. */
    override fun openDecoder(bucket: AudioBucket, spec: Transcription): SpeechDecoder {
        if (spec.state != State.HOST) throw EngineError("a LiteRT model keeps no state: convert the bundle again")
        val names = listOf(bucket.encode, bucket.prefill, bucket.decode)
        val own = names.associateWith { makeBuffers(programs.getValue(it)) }
        val cross = cacheNames(spec.layers, "cross").toSet()
        val upToDate = HashSet<String>()
        val run = { program: String, inputs: Map<String, Tensor> ->
            running(program) {
                if (program == bucket.encode) upToDate.clear()
                own.getValue(program).run(inputs, unchanged = if (program in upToDate) cross else emptySet())
                    .also { upToDate += program }
            }
        }
        val decoder = HostStateDecoder(run, bucket, spec)
        return object : SpeechDecoder by decoder {
            override fun close() {
                decoder.close()
                own.values.forEach(LiteRtBuffers::close)
            }
        }
    }

    override fun release() {
        buffers.values.forEach(LiteRtBuffers::close)
        models.values.forEach(CompiledModel::close)
    }

    private fun open(file: String): CompiledModel = models.getOrPut(file) {
        try {
            CompiledModel.create(bundle.folderWith(file, cache).path, options(), environment)
        } catch (error: LiteRtException) {
            throw cannotOpen(file, error)
        }
    }

    /** Without a cache of packed weights, every signature packs its own: hundreds of megabytes of a speech model. */
    private fun options() = CompiledModel.Options(Accelerator.CPU).apply {
        val shared = IN_MEMORY.takeIf { programs.size > 1 && Build.VERSION.SDK_INT >= FIRST_WITH_MEMORY_FILES }
        cpuOptions = CompiledModel.CpuOptions(numThreads = threads, xnnPackWeightCachePath = shared)
    }

    private fun makeBuffers(program: ProgramSpec): LiteRtBuffers = try {
        LiteRtBuffers(open(program.file), program)
    } catch (error: LiteRtException) {
        throw EngineError(
            "${program.file} has no signature ${program.entry} with the manifest's tensors: convert the bundle again",
            error,
        )
    }

    private companion object {
        /** XNNPACK's name for a file that is nowhere but in memory. */
        const val IN_MEMORY = ":memory"

        /** Android 11: apps may make such files. */
        const val FIRST_WITH_MEMORY_FILES = 30

        /** One per process, as LiteRT wants it; it ends with the process. */
        val environment: Environment by lazy { Environment.create() }
    }
}
