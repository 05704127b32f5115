package org.edgeformer.core

import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.ImagePreprocessing

const val FORMAT_VERSION = 1
const val MANIFEST_NAME = "manifest.json"

/** Marks a bundle that the gates of its conversion refused. */
const val REFUSED_FILE = "refused.json"
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

/** 1 at the position whose token is predicted, of programs that predict one. */
const val MASK_POSITION = "mask_position"

/** The inputs that a program for text may have. */
val TEXT_INPUTS = listOf("input_ids", "attention_mask", "token_type_ids", MASK_POSITION)

/** What a task is called, and the kinds of its preprocessing and of its postprocessing. */
enum class Task(val key: String, internal val before: String, internal val head: String) {
    TEXT_CLASSIFICATION("text-classification", "text", "classification"),
    TEXT_EMBEDDING("text-embedding", "text", "embedding"),
    TEXT_SCORING("text-scoring", "text", "score"),
    QUESTION_ANSWERING("question-answering", "text", "spans"),
    TOKEN_CLASSIFICATION("token-classification", "text", "entities"),
    FILL_MASK("fill-mask", "text", "fills"),
    IMAGE_CLASSIFICATION("image-classification", "image", "classification"),
    IMAGE_EMBEDDING("image-embedding", "image", "embedding"),
    IMAGE_TEXT("image-text", "image-text", "similarity"),
    SPEECH_RECOGNITION("speech-recognition", "audio", "transcription"),
}

/** What runs a bundle. */
enum class Target(val key: String) { LITERT("litert"), COREML("coreml"), EXECUTORCH("executorch"), ONNX("onnx") }

/** One callable of a model file: [entry] is the signature, function or method that runs it inside [file]. */
data class ProgramSpec(
    val name: String,
    val file: String,
    val entry: String,
    val inputs: List<TensorSpec>,
    val outputs: List<TensorSpec>,
)

/**
 * Raw input to a program's inputs: [TextPreprocessing], [ImagePreprocessing], [ImageTextPreprocessing] or
 * [AudioPreprocessing].
 */
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

/** An image for the program [IMAGE_PROGRAM], or a text for one of the others, which are its buckets. */
data class ImageTextPreprocessing(val image: ImagePreprocessing, val text: TextPreprocessing) : Preprocessing {
    override val kind: String get() = "image-text"
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

/** The program's output is the score itself, or where [isSigmoid] its sigmoid is. */
data class Score(val isSigmoid: Boolean) : Postprocessing() {
    override val kind: String get() = "score"
}

/**
 * Every program's output is an embedding of L2 norm 1; a cosine of two times [scale] plus [bias] is a logit.
 *
 * @property activation over the logits of a call's labels.
 */
data class Similarity(val dim: Int, val scale: Double, val bias: Double, val activation: Activation) :
    Postprocessing() {
    override val kind: String get() = "similarity"
}

/**
 * An answer is a span of the second text, scored by its first token and its last.
 *
 * @property stride tokens that neighbouring windows of a long text share.
 * @property maxAnswerTokens the longest answer.
 */
data class SpanExtraction(val stride: Int, val maxAnswerTokens: Int) : Postprocessing() {
    override val kind: String get() = "spans"
}

/** How tokens become entities, as BUNDLE.md defines it. */
enum class Aggregation(val key: String) {
    NONE("none"), SIMPLE("simple"), FIRST("first"), AVERAGE("average"), MAX("max")
}

/**
 * Every token gets a label; tokens of one label become an entity.
 *
 * @property labels in the order of the logits.
 * @property outside labels of what is no entity.
 * @property stride tokens that neighbouring windows of a long text share.
 */
data class TokenLabels(
    val labels: List<String>,
    val outside: List<String>,
    val aggregation: Aggregation,
    val stride: Int,
) : Postprocessing() {
    override val kind: String get() = "entities"
}

/**
 * The program's only output is the logits (1, V) of every token of the vocabulary, at one position.
 *
 * @property maskToken what stands in a text for the token that is looked for, as [MASK].
 * @property maskTokenId its id.
 */
data class MaskedToken(val maskToken: String, val maskTokenId: Int) : Postprocessing() {
    override val kind: String get() = "fills"
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
data class BundleManifest(
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
        fun parse(data: ByteArray): BundleManifest {
            val value = StrictJson.parse(data, MANIFEST_NAME, MAX_MANIFEST_BYTES)
            checkVersion(value)
            checkCharacters(value)
            return Fields.read(value, MANIFEST_NAME, ::readManifest).also(::checkManifest)
        }
    }
}
