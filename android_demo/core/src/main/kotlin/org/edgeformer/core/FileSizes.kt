package org.edgeformer.core

import org.edgeformer.core.preprocess.AudioPreprocessing

private const val MIB = 1L shl 20
private const val MAX_CASES_BYTES = 16 * MIB
private const val MAX_REPORT_BYTES = 64 * MIB
private const val MAX_TENSORS_BYTES = 1024 * MIB

/** Of a tokenizer's file, and of mel filters. */
private const val MAX_TABLE_BYTES = 64 * MIB

/** Of an image or a recording among the vectors. */
private const val MAX_RAW_INPUT_BYTES = 128 * MIB

/** Of a LiteRT or ONNX model: offsets in FlatBuffers and lengths in Protocol Buffers are 31 bits. */
private const val MAX_MODEL_BYTES = Int.MAX_VALUE.toLong()

/** Of a file that nothing refers to, as a licence. */
private const val MAX_OTHER_BYTES = 256 * MIB

/** Refuses a size that a file of its kind cannot have, before anything is read and hashed. */
internal fun checkSizes(manifest: BundleManifest) {
    val limits = hashMapOf(
        CASES_FILE to MAX_CASES_BYTES, TENSORS_FILE to MAX_TENSORS_BYTES, REPORT_FILE to MAX_REPORT_BYTES,
    )
    (manifest.preprocessing as? TextPreprocessing)?.tokenizer?.let { limits[it] = MAX_TABLE_BYTES }
    (manifest.preprocessing as? ImageTextPreprocessing)?.text?.tokenizer?.let { limits[it] = MAX_TABLE_BYTES }
    (manifest.preprocessing as? AudioPreprocessing)?.let { limits[it.melFilters] = MAX_TABLE_BYTES }
    (manifest.postprocessing as? Transcription)?.let { limits[it.tokenizer] = MAX_TABLE_BYTES }
    val models = manifest.programs.map { it.file }.toSet()
    val besideModels = if (manifest.target == Target.ONNX) models.map(::folderOf).toSet() else emptySet()
    for ((name, entry) in manifest.files) {
        val limit = limits[name] ?: when {
            name.startsWith(VECTORS_FOLDER) -> MAX_RAW_INPUT_BYTES
            name in models && manifest.target in listOf(Target.LITERT, Target.ONNX) -> MAX_MODEL_BYTES
            name in models || manifest.target == Target.COREML || folderOf(name) in besideModels -> continue
            else -> MAX_OTHER_BYTES
        }
        if (entry.size > limit) throw BundleError("${shorten(name)}: expected at most $limit bytes, found ${entry.size}")
    }
}

private const val LARGE_BYTES = 64 * MIB
private const val SAMPLES = 64
private const val SAMPLE_BYTES = 4096

/** So many samples of zeros are no model's: what was pruned has other numbers beside it. */
private const val MOST_EMPTY_SAMPLES = 60

/**
 * Refuses a large file that is mostly holes, before its zeros are hashed: nothing was ever written there.
 *
 * Java cannot ask the file system, so samples of the file are looked at, evenly spread.
 */
internal fun refuseHoles(manifest: BundleManifest, files: BundleFiles) {
    for ((name, entry) in manifest.files) {
        if (entry.size < LARGE_BYTES) continue
        val bytes = files.map(name)
        val distance = (bytes.capacity() - SAMPLE_BYTES) / (SAMPLES - 1)
        val empty = (0 until SAMPLES).count { sample ->
            (0 until SAMPLE_BYTES).all { bytes.get(sample * distance + it) == 0.toByte() }
        }
        if (empty > MOST_EMPTY_SAMPLES) {
            throw BundleError("${shorten(name)}: most of its ${entry.size} bytes were never written: download it again")
        }
    }
}

private fun folderOf(name: String) = name.substringBeforeLast('/', "")
