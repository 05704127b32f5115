package org.edgeformer.core.models

import java.nio.ByteBuffer
import org.edgeformer.core.BundleError
import org.edgeformer.core.BundleManifest
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Target
import org.edgeformer.core.largestNumber
import org.edgeformer.core.shorten

private const val WAY_ON = "convert the bundle again, or get it again from its publisher"

/**
 * Looks at a bundle's model files before an engine opens them, as BUNDLE.md says in "Model files".
 *
 * @return for the inputs that index a table, how many rows it has: whoever runs the model holds the numbers to it.
 * @throws BundleError names the file, the rule that it breaks, and where.
 */
fun checkModelFiles(bundle: ModelBundle): Rows {
    val manifest = bundle.manifest
    val counts = HashMap<String, Int>()
    val rows = HashMap<String, Map<String, Int>>()
    for ((file, programs) in manifest.programs.groupBy { it.file }.toSortedMap()) {
        if (manifest.target == Target.COREML) throw BundleError("$file: a Core ML package, which nothing opens here")
        val folder = file.substringBeforeLast('/', "")
        val sizes = manifest.files.filterKeys { it.substringBeforeLast('/', "") == folder }
            .map { (name, entry) -> name.substringAfterLast('/') to entry.size }.toMap()
        val found = checkModelFile(manifest.target, file, bundle.map(file), sizes, programs)
        for ((name, count) in found.operators) counts[name] = (counts[name] ?: 0) + count
        rows += found.rows
    }
    compareOperators(manifest.operators, counts)
    manifest.programs.forEach { compareRows(manifest, it, rows[it.name].orEmpty()) }
    return rows
}

/** Refuses a program whose inputs may number rows that its tables have not. */
private fun compareRows(manifest: BundleManifest, program: ProgramSpec, rows: Map<String, Int>) {
    for ((name, count) in rows) {
        val largest = largestNumber(manifest, program, name) ?: continue
        // A table of one row is that of a model without token types: a run that asks for another row is refused.
        if (count > 1 && largest in count until Int.MAX_VALUE) {
            throw BundleError(
                "${program.file}: ${program.name}: the input ${shorten(name)} may be $largest, the model's table has " +
                    "$count rows: $WAY_ON",
            )
        }
    }
}

/** What is in one model file that breaks no rule; `sizes` are those of its folder's files. */
internal fun checkModelFile(
    target: Target,
    file: String,
    bytes: ByteBuffer,
    sizes: Map<String, Long>,
    programs: List<ProgramSpec>,
): Contents = try {
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
