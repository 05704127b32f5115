package org.edgeformer.engine

import java.io.File
import org.edgeformer.core.EngineError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Target
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.models.checkModelFiles

/** What an app takes from Maven for each target. */
private val RUNTIMES = mapOf(
    Target.LITERT to "com.google.ai.edge.litert:litert",
    Target.EXECUTORCH to "org.pytorch:executorch-android",
    Target.ONNX to "com.microsoft.onnxruntime:onnxruntime-android",
)

/**
 * Opens the engine of a bundle's target.
 *
 * @param bundle stays open as long as the engine.
 * @param cache a private folder, for copies of model files that an engine can only open by a path.
 * @param threads how many threads the engine may use.
 * @throws EngineError no engine runs this target here, or the model cannot be opened.
 * @throws org.edgeformer.core.BundleError a model file breaks a rule of BUNDLE.md.
 */
fun openEngine(bundle: ModelBundle, cache: File, threads: Int = defaultThreads()): Engine {
    val target = bundle.manifest.target
    if (target == Target.COREML) throw EngineError("a bundle for coreml runs on Apple's devices: convert it for litert")
    val rows = checkModelFiles(bundle)
    try {
        val engine = when (target) {
            Target.LITERT -> LiteRtEngine(bundle, cache, threads)
            Target.EXECUTORCH -> ExecuTorchEngine(bundle, cache, threads)
            Target.ONNX -> OnnxEngine(bundle, cache, threads)
            Target.COREML -> error("refused before")
        }
        return engine.also { it.rows = rows }
    } catch (error: LinkageError) {
        // The classes, or the native library behind them: an app packages the engines that its bundles need.
        throw EngineError("this app has no runtime for ${target.key}: add ${RUNTIMES[target]} to its dependencies", error)
    }
}

/** Half of the cores, at most four: phones pair fast cores with slow ones, on which the fast ones would wait. */
fun defaultThreads(): Int = (Runtime.getRuntime().availableProcessors() / 2).coerceIn(1, 4)
