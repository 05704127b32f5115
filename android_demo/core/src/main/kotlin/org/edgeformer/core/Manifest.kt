package org.edgeformer.core

import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.ImagePreprocessing

const val FORMAT_VERSION = 1
const val MANIFEST_NAME = "manifest.json"
const val SIGNATURE_NAME = "manifest.sig"
const val VECTORS_FOLDER = "vectors/"
const val CASES_FILE = VECTORS_FOLDER + "cases.json"
const val TENSORS_FILE = VECTORS_FOLDER + "tensors.safetensors"
const val REPORT_FILE = "report.json"
const val MAX_MANIFEST_BYTES = 4 shl 20
const val MAX_FILES = 10_000
const val IMAGE_PROGRAM = "image"
const val IMAGE_INPUT = "pixels"

/** The names of the other stages of a verification. */
val RESERVED_PROGRAM_NAMES = listOf("preprocess", "answer", "mel", "steps", "text")

/** The inputs that a program for text may have. */
val TEXT_INPUTS = listOf("input_ids", "attention_mask", "token_type_ids")

/** What a task is called, and the kinds of its preprocessing and of its postprocessing. */
enum class Task(val key: String, internal val before: String, internal val head: String) {
    TEXT_CLASSIFICATION("text-classification", "text", "classification"),
    TEXT_EMBEDDING("text-embedding", "text", "embedding"),
    IMAGE_CLASSIFICATION("image-classification", "image", "classification"),
    SPEECH_RECOGNITION("speech-recognition", "audio", "transcription"),
}

/** What runs a bundle. */
enum class Target(val key: String) { LITERT("litert"), COREML("coreml"), EXECUTORCH("executorch"), ONNX("onnx") }

internal val WORD = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
private val NAME = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
private val ENTRY = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
private val SHA256 = Regex("[0-9a-f]{64}")
private val VERSION = Regex("(0|[1-9][0-9]{0,5})(\\.(0|[1-9][0-9]{0,5})){2}")
private val OS_VERSION = Regex("[0-9]{1,4}(\\.[0-9]{1,4}){0,2}")

/** One callable of a model file: [entry] is the signature, function or method that runs it inside [file]. */
data class ProgramSpec(
    val name: String,
    val file: String,
    val entry: String,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
)

/** Raw input to a program's inputs: [TextPreprocessing], [ImagePreprocessing] or [AudioPreprocessing]. */
interface Preprocessing {
    /** As the manifest writes it. */
    val kind: String
}

/**
 * Text to token ids. Every program of the bundle is a bucket whose length is dimension 1 of its inputs.
 *
 * @property tokenizer a tokenizers JSON file, or null when callers bring token ids.
 * @property padTokenId fills the ids up.
 * @property vocabSize token ids must be below it. Null: unknown.
 */
data class TextPreprocessing(val tokenizer: String?, val padTokenId: Int, val vocabSize: Int?) : Preprocessing {
    override val kind: String get() = "text"
}

/** A program's outputs to an answer. */
sealed class Postprocessing {
    /** As the manifest writes it. */
    abstract val kind: String
}

/** How logits become scores: one label holds, or any number of them. */
enum class Activation(val key: String) { SOFTMAX("softmax"), SIGMOID("sigmoid") }

/** Scores from logits, which are in the order of [labels]. */
data class Classification(val labels: List<String>, val activation: Activation) : Postprocessing() {
    override val kind: String get() = "classification"
}

/** The program's output is the embedding itself, of L2 norm 1 where [normalized]. */
data class Embedding(val dim: Int, val normalized: Boolean) : Postprocessing() {
    override val kind: String get() = "embedding"
}

/** The oldest versions that run the bundle. Null: the target does not run there. */
data class Requirements(val runtime: String, val ios: String?, val macos: String?, val androidApi: Int?)

/** The checkpoint that the bundle was made from; [weightsSha256] covers the weight files' bytes. */
data class Source(val id: String, val revision: String?, val weightsSha256: String)

/** What was asked of the weights: [name] decodes as `<activation range>_w<weight type>_a<activation type>`. */
data class Recipe(val name: String, val weights: String, val activations: String, val embeddings: String)

/** What a file of the bundle must be: the SHA-256 of its bytes in hexadecimal, and how many there are. */
data class FileEntry(val sha256: String, val size: Long)

/** Everything an app has to know to run the bundle; see BUNDLE.md for each field's meaning. */
data class Manifest(
    val name: String,
    val family: String,
    val task: Task,
    val target: Target,
    val precision: String,
    val license: String?,
    val requires: Requirements,
    val source: Source,
    val recipe: Recipe,
    val attention: String,
    val toolchain: Map<String, String>,
    val programs: List<ProgramSpec>,
    val preprocessing: Preprocessing,
    val postprocessing: Postprocessing,
    val operators: Map<String, Int>,
    val files: Map<String, FileEntry>,
) {
    companion object {
        /**
         * Reads a manifest from an untrusted file.
         *
         * @throws BundleError the text does not follow BUNDLE.md, or asks for a newer runtime.
         */
        fun parse(data: ByteArray): Manifest {
            val value = StrictJson.parse(data, MANIFEST_NAME, MAX_MANIFEST_BYTES)
            checkVersion(value)
            checkText(value)
            return Fields.read(value, MANIFEST_NAME, ::readManifest).also(::checkManifest)
        }
    }
}

/** Says that a bundle is newer before a check that cannot know its keys says something less helpful. */
private fun checkVersion(value: Any?) {
    val fields = value as? Map<*, *> ?: return
    val found = fields["format_version"]
    if (found is Long && found > FORMAT_VERSION) {
        throw BundleError(
            "$MANIFEST_NAME: made by a newer version ($found), this runtime reads $FORMAT_VERSION: upgrade the app",
        )
    }
    val needed = (fields["requires"] as? Map<*, *>)?.get("runtime")
    if (needed is String && VERSION.matches(needed) && isNewer(needed, RUNTIME_VERSION)) {
        throw BundleError("$MANIFEST_NAME: needs runtime $needed or newer, this is $RUNTIME_VERSION: upgrade the app")
    }
}

private fun isNewer(version: String, than: String): Boolean {
    val pairs = version.split('.').map { it.toInt() }.zip(than.split('.').map { it.toInt() })
    val (a, b) = pairs.firstOrNull { (a, b) -> a != b } ?: return false
    return a > b
}

/** No text of a manifest, key or value, holds a control character. */
private fun checkText(value: Any?) {
    when (value) {
        is String -> if (value.any { it < ' ' }) {
            throw BundleError("$MANIFEST_NAME: ${shorten(value)} holds a control character")
        }
        is Map<*, *> -> value.forEach { (key, child) ->
            checkText(key)
            checkText(child)
        }
        is List<*> -> value.forEach(::checkText)
    }
}

private fun readManifest(fields: Fields): Manifest {
    fields.int("format_version", FORMAT_VERSION..FORMAT_VERSION.toLong())
    return Manifest(
        name = fields.string("name", NAME),
        family = fields.string("family", WORD),
        task = fields.choice("task", Task.values().map { it.key }).let { key -> Task.values().first { it.key == key } },
        target = fields.choice("target", Target.values().map { it.key })
            .let { key -> Target.values().first { it.key == key } },
        precision = fields.string("precision", WORD),
        license = fields.optionalString("license", length = 1..200),
        requires = fields.obj("requires") {
            Requirements(
                runtime = it.string("runtime", VERSION),
                ios = it.optionalString("ios", OS_VERSION),
                macos = it.optionalString("macos", OS_VERSION),
                androidApi = it.optionalInt("android_api", 1..1000L),
            )
        },
        source = fields.obj("source") {
            Source(
                id = it.string("id", length = 1..500),
                revision = it.optionalString("revision", length = 1..200),
                weightsSha256 = it.string("weights_sha256", SHA256),
            )
        },
        recipe = fields.obj("recipe") {
            Recipe(
                name = it.string("name", WORD),
                weights = it.string("weights", WORD),
                activations = it.string("activations", WORD),
                embeddings = it.string("embeddings", WORD),
            )
        },
        attention = fields.string("attention", WORD),
        toolchain = fields.table("toolchain", 0..100, 1..100) { all, key -> all.string(key, length = 1..100) },
        programs = fields.objects("programs", 1..64, ::readProgram),
        preprocessing = fields.obj("preprocessing", ::readPreprocessing),
        postprocessing = fields.obj("postprocessing", ::readPostprocessing),
        operators = fields.table("operators", 0..10_000, 1..200) { all, key -> all.int(key, 1..1_000_000_000L) },
        files = fields.table("files", 1..MAX_FILES, 0..Int.MAX_VALUE) { all, key ->
            all.obj(key) { FileEntry(it.string("sha256", SHA256), it.long("size", 0..0xFFFFFFFFL)) }
        },
    )
}

private fun readProgram(fields: Fields) = ProgramSpec(
    name = fields.string("name", WORD),
    file = fields.string("file"),
    entry = fields.string("entry", ENTRY),
    inputs = fields.objects("inputs", 1..256, ::readTensor),
    outputs = fields.objects("outputs", 1..256, ::readTensor),
)

private fun readTensor(fields: Fields) = TensorSpec(
    name = fields.string("name", WORD),
    dtype = fields.choice("dtype", listOf("float32", "int32")),
    shape = fields.ints("shape", 0..8, 1..Int.MAX_VALUE.toLong()),
)

private fun readPreprocessing(fields: Fields): Preprocessing = when (fields.choice("kind", listOf("text", "image", "audio"))) {
    "text" -> TextPreprocessing(
        tokenizer = fields.optionalString("tokenizer"),
        padTokenId = fields.int("pad_token_id", 0..Int.MAX_VALUE.toLong()),
        vocabSize = fields.optionalInt("vocab_size", 1..Int.MAX_VALUE.toLong()),
    )
    "image" -> ImagePreprocessing.read(fields)
    else -> AudioPreprocessing.read(fields)
}

private fun readPostprocessing(fields: Fields): Postprocessing =
    when (fields.choice("kind", listOf("classification", "embedding", "transcription"))) {
        "classification" -> Classification(
            labels = fields.strings("labels", 1..100_000, 1..500),
            activation = fields.choice("activation", Activation.values().map { it.key })
                .let { key -> Activation.values().first { it.key == key } },
        )
        "embedding" -> Embedding(fields.int("dim", 1..1_000_000L), fields.boolean("normalized"))
        else -> Transcription.read(fields)
    }
