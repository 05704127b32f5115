/**
 * What the LiteRT engine uses of `com.google.ai.edge.litert:litert:2.3.0`, for type checking where the library itself
 * cannot be had. Signatures as in LiteRT's `litert/kotlin/src/main/kotlin`; nothing of this is packaged.
 */
@file:Suppress("UNUSED_PARAMETER")

package com.google.ai.edge.litert

import android.content.res.AssetManager

private fun absent(): Nothing = throw UnsupportedOperationException("a stub for type checking")

/** An error of the native library. */
class LiteRtException(code: Int, message: String) : Exception(message)

/** An object of the native library. */
abstract class JniHandle internal constructor() : AutoCloseable {
    protected abstract fun destroy()

    final override fun close() = absent()
}

/** What may execute a model. */
enum class Accelerator {
    NONE,
    CPU,
    GPU,
    NPU,
}

/** The configuration of the library in this process. */
class Environment private constructor() : JniHandle() {
    /** A setting of the environment. */
    enum class Option {
        CompilerPluginLibraryDir,
        DispatchLibraryDir,
    }

    override fun destroy() = absent()

    companion object {
        @JvmOverloads
        @JvmStatic
        fun create(options: Map<Option, String> = mapOf()): Environment = absent()
    }
}

/** Memory for a tensor. */
class TensorBuffer internal constructor() : JniHandle() {
    @Throws(LiteRtException::class)
    fun writeInt(data: IntArray): Unit = absent()

    @Throws(LiteRtException::class)
    fun writeFloat(data: FloatArray): Unit = absent()

    @Throws(LiteRtException::class)
    fun readInt(): IntArray = absent()

    @Throws(LiteRtException::class)
    fun readFloat(): FloatArray = absent()

    override fun destroy() = absent()
}

/** A model, ready to run. */
class CompiledModel private constructor() : JniHandle() {
    /** Settings of the CPU. */
    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    )

    /** What executes the model, and how. */
    class Options(vararg accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null
    }

    @Throws(LiteRtException::class)
    fun createInputBuffer(inputName: String, signature: String? = null): TensorBuffer = absent()

    @Throws(LiteRtException::class)
    fun createOutputBuffer(outputName: String, signature: String? = null): TensorBuffer = absent()

    @Throws(LiteRtException::class)
    fun run(
        inputs: Map<String, TensorBuffer>,
        outputs: Map<String, TensorBuffer>,
        signature: String? = null,
    ): Unit = absent()

    override fun destroy() = absent()

    companion object {
        @Throws(LiteRtException::class)
        @JvmOverloads
        @JvmStatic
        fun create(
            assetManager: AssetManager,
            assetName: String,
            options: Options = absent(),
            optionalEnv: Environment? = null,
        ): CompiledModel = absent()

        @Throws(LiteRtException::class)
        @JvmOverloads
        @JvmStatic
        fun create(filePath: String, options: Options = absent(), optionalEnv: Environment? = null): CompiledModel =
            absent()
    }
}
