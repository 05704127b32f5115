package org.edgeformer.engine

import java.io.File
import java.nio.Buffer
import java.nio.FloatBuffer
import java.nio.IntBuffer
import org.edgeformer.core.EngineError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.engines.Engine

/** What opens a model, or closes the half-open engine. */
internal fun <T> Engine.orClosed(open: () -> T): T =
    try {
        open()
    } catch (error: EngineError) {
        close()
        throw error
    }

/** An error of a runtime's library that cannot open a file, in our words. */
internal fun Engine.cannotOpen(file: String, error: Exception) =
    EngineError("$executedBy cannot open $file: ${error.message}", error)

/** A model file by itself, with all files of its folder beside it: it may refer to them. */
internal fun ModelBundle.folderWith(file: String, cache: File): File {
    val folder = file.substringBeforeLast('/', "")
    manifest.files.keys.filter { it.substringBeforeLast('/', "") == folder }.forEach { fileOf(it, cache) }
    return fileOf(file, cache)
}

/**
 * A file's inputs and outputs have the names that the manifest declares.
 *
 * @throws EngineError they have not.
 */
internal fun compareNames(program: ProgramSpec, found: Set<String>) {
    val declared = (program.inputs + program.outputs).map { it.name }.toSet()
    if (found != declared) {
        throw EngineError(
            "${program.file} has the inputs and outputs ${found.sorted().joinToString()}, the manifest declares " +
                "${declared.sorted().joinToString()}: convert the bundle again",
        )
    }
}

/** The same memory from its first value to its last, whoever has moved the position. */
internal fun FloatBuffer.fromStart(): FloatBuffer = duplicate().also(::toStart)

/** See above. */
internal fun IntBuffer.fromStart(): IntBuffer = duplicate().also(::toStart)

/** `Buffer.clear` itself: newer platforms override it, and older ones have no such override. */
private fun toStart(buffer: Buffer) {
    buffer.clear()
}
