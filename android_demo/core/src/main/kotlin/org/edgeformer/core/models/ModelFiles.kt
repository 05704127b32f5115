package org.edgeformer.core.models

import org.edgeformer.core.Bundle
import org.edgeformer.core.BundleError
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Target
import org.edgeformer.core.shorten
import java.nio.ByteBuffer

private const val WAY_ON = "convert the bundle again, or get it again from its publisher"

/**
 * Looks at a bundle's model files before an engine opens them, as BUNDLE.md says in "Model files".
 *
 * @throws BundleError names the file, the rule that it breaks, and where.
 */
fun checkModelFiles(bundle: Bundle) {
    val manifest = bundle.manifest
    val counts = HashMap<String, Int>()
    for ((file, programs) in manifest.programs.groupBy { it.file }.toSortedMap()) {
        if (manifest.target == Target.COREML) throw BundleError("$file: a Core ML package, which nothing opens here")
        val folder = file.substringBeforeLast('/', "")
        val sizes = manifest.files.filterKeys { it.substringBeforeLast('/', "") == folder }
            .map { (name, entry) -> name.substringAfterLast('/') to entry.size }.toMap()
        for ((name, count) in checkModelFile(manifest.target, file, bundle.map(file), sizes, programs)) {
            counts[name] = (counts[name] ?: 0) + count
        }
    }
    compareOperators(manifest.operators, counts)
}

/** How often each operator occurs in one model file that breaks no rule; `sizes` are those of its folder's files. */
internal fun checkModelFile(
    target: Target,
    file: String,
    bytes: ByteBuffer,
    sizes: Map<String, Long>,
    programs: List<ProgramSpec>,
): Map<String, Int> = try {
    when (target) {
        Target.LITERT -> checkTflite(bytes, programs)
        Target.ONNX -> checkOnnx(bytes, sizes, programs)
        Target.EXECUTORCH -> checkPte(bytes, programs)
        Target.COREML -> refuse("no reader of it here")
    }
} catch (error: Broken) {
    throw BundleError("$file: ${error.message}: $WAY_ON", error)
}

internal fun compareOperators(stated: Map<String, Int>, found: Map<String, Int>) {
    for (name in (stated.keys + found.keys).sorted()) {
        if (found[name] != stated[name]) {
            throw BundleError(
                "the model has the operator ${shorten(name)} ${found[name] ?: 0} times, the manifest states " +
                    "${stated[name] ?: 0}: $WAY_ON",
            )
        }
    }
}
