package org.edgeformer.core

import org.edgeformer.core.pipelines.AnswerSpan
import org.edgeformer.core.pipelines.Entity
import org.edgeformer.core.pipelines.Fill
import org.edgeformer.core.preprocess.ImagePreprocessing
import org.edgeformer.core.preprocess.normalisationTable
import org.edgeformer.core.preprocess.toInput

private const val MAX_CASES_BYTES = 16 shl 20
private val TOKEN = 0..Int.MAX_VALUE.toLong()
private val IMAGE_NAME = Regex("vectors/[^/]+\\.png")
private val AUDIO_NAME = Regex("vectors/[^/]+\\.wav")

/** What is kept of a long tensor of speech, whose tensors have millions of values. */
const val SAMPLED_VALUES = 512

/** The forms of raw input, by the kind of the preprocessing that takes them. */
private val RAW_INPUTS = mapOf(
    "text" to listOf(setOf("text"), setOf("text", "pair"), setOf("token_ids")),
    "image" to listOf(setOf("image")),
    "image-text" to listOf(setOf("image"), setOf("image", "labels"), setOf("text")),
    "audio" to listOf(setOf("audio", "samples")),
)

/**
 * How far a bundle may be from the reference.
 *
 * @property output of a program's output, as a fraction of the reference output's largest absolute value.
 * @property score of a probability, or of a component of a normalised embedding, absolute.
 */
data class Tolerances(val output: Double, val score: Double)

/** The recorded answer: scores of labels; text with its prompt and tokens; or nothing where it is the output itself. */
sealed class Expected {
    /** Every label with its score, best first. */
    data class Scores(val labels: List<String>, val scores: List<Double>) : Expected()

    /** What was said, after which prompt, in which tokens. */
    data class Text(val text: String, val prompt: List<Int>, val tokens: List<Int>) : Expected()

    /** Answers to a question, best first. */
    data class Spans(val answers: List<AnswerSpan>) : Expected()

    /** Entities, in the order of the text. */
    data class Entities(val entities: List<Entity>) : Expected()

    /** Tokens for the masks of a text. */
    data class Fills(val fills: List<Fill>) : Expected()

    /** The answer is the program's output. */
    object Output : Expected()
}

/**
 * One input on its recorded way through the reference.
 *
 * @property program the name of the program that runs it.
 * @property raw the raw input as it is stored: {"text", "pair"?}, {"token_ids"}, {"image", "labels"?} or {"audio",
 *   "samples"}.
 * @property inputs the program's inputs by name; of audio a part of them ([sampled]).
 * @property outputs the reference's outputs by name; of speech parts, and `logits` row by row.
 */
class Case(
    val program: String,
    val raw: Map<String, Any?>,
    val expected: Expected,
    val inputs: Map<String, Tensor>,
    val outputs: Map<String, Tensor>,
)

/** The cases of a bundle, each with exactly the tensors that its program declares. */
class Vectors private constructor(val cases: List<Case>, val tolerances: Tolerances) {
    companion object {
        /** @throws BundleError there are none, they do not follow BUNDLE.md, or a program has no case. */
        fun read(bundle: ModelBundle): Vectors {
            val manifest = bundle.manifest
            if (CASES_FILE !in manifest.files) {
                throw BundleError("the bundle ${manifest.name} has no recorded vectors: convert it again to verify it")
            }
            val document = StrictJson.parse(bundle.readBytes(CASES_FILE), CASES_FILE, MAX_CASES_BYTES)
            val tensors = Safetensors.read(bundle.map(TENSORS_FILE), TENSORS_FILE)
            val reader = CaseReader(manifest, tensors)
            val vectors = Fields.read(document, CASES_FILE) { fields ->
                val tolerances = fields.obj("tolerances") {
                    Tolerances(it.number("output", 0.0, 1.0), it.number("score", 0.0, 1.0))
                }
                Vectors(fields.objects("cases", 1..1000, reader::read), tolerances)
            }
            reader.end(vectors.cases)
            return vectors
        }
    }
}

/** How a bundle's images become pixels, null where it takes none. */
internal fun pixelsOf(manifest: BundleManifest): ImagePreprocessing? = when (val reads = manifest.preprocessing) {
    is ImagePreprocessing -> reads
    is ImageTextPreprocessing -> reads.image
    else -> null
}

/** Reads cases in turn, and knows which tensors they leave over. */
private class CaseReader(private val manifest: BundleManifest, tensors: Map<String, Tensor>) {
    private val left = HashMap(tensors)
    private var index = 0
    private val head = manifest.postprocessing
    private val pixels = pixelsOf(manifest)

    /** The programs that begin a case: all of them, or of speech those that encode. */
    private val starts = if (head is Transcription) {
        manifest.programs.filter { program -> head.buckets.any { it.encode == program.name } }
    } else {
        manifest.programs
    }

    fun read(fields: Fields): Case {
        val name = fields.string("program", length = 1..64)
        val known = starts.joinToString(", ") { it.name }
        val program = starts.firstOrNull { it.name == name }
            ?: fields.fail("program", "expected one of $known, found ${shorten(name)}")
        val raw = fields.obj("input", ::readRaw)
        val expected = fields.obj("expected") { readExpected(it, program, raw) }
        val inputs = take(inputSpecs(program)).mapValues { (_, tensor) -> normalised(tensor) }
        if (head !is Transcription) checkNumbers(inputs, program)
        return Case(name, raw, expected, inputs, take(outputSpecs(program, expected))).also { index++ }
    }

    fun end(cases: List<Case>) {
        val unknown = left.keys.minOrNull()
        if (unknown != null) throw BundleError("$TENSORS_FILE: unknown tensor ${shorten(unknown)}")
        // A program without a case would pass every verification unseen.
        val unseen = starts.firstOrNull { program -> cases.none { it.program == program.name } } ?: return
        throw BundleError("$CASES_FILE: no case runs the program ${unseen.name}")
    }

    private fun readRaw(fields: Fields): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        if (fields.has("text")) found["text"] = fields.string("text", length = 0..200_000)
        if (fields.has("pair")) found["pair"] = fields.string("pair", length = 0..200_000)
        if (fields.has("token_ids")) found["token_ids"] = fields.ints("token_ids", 1..100_000, TOKEN)
        if (fields.has("image")) found["image"] = listed(fields, "image", IMAGE_NAME)
        if (fields.has("labels")) found["labels"] = fields.strings("labels", 1..1000, 1..500)
        if (fields.has("audio")) found["audio"] = listed(fields, "audio", AUDIO_NAME)
        if (fields.has("samples")) found["samples"] = fields.int("samples", 0..100_000_000L)
        if (found.keys !in RAW_INPUTS.getValue(manifest.preprocessing.kind)) {
            throw BundleError("$CASES_FILE: cases[$index]: input: unexpected for ${manifest.task.key}: ${found.keys}")
        }
        return found
    }

    private fun listed(fields: Fields, key: String, pattern: Regex): String {
        val name = fields.string(key, pattern, 0..255)
        if (name !in manifest.files) fields.fail(key, "${shorten(name)} is not among the manifest's files")
        return name
    }

    private fun readExpected(fields: Fields, program: ProgramSpec, raw: Map<String, Any?>): Expected = when (head) {
        is SpanExtraction -> {
            val context = raw["pair"] as String? ?: throw BundleError("$CASES_FILE: cases[$index]: expected a pair")
            Expected.Spans(
                fields.objects("answers", 0..100) {
                    val (text, start, end) = readPlace(it, context)
                    AnswerSpan(text, start, end, it.number("score", 0.0, 4096.0))
                },
            )
        }
        is TokenLabels -> {
            val text = raw["text"] as String?
            if (text == null || "pair" in raw) throw BundleError("$CASES_FILE: cases[$index]: expected one text")
            val labels = head.labels + head.labels.map { it.substringAfter('-') }
            Expected.Entities(
                fields.objects("entities", 0..100_000) {
                    val (found, start, end) = readPlace(it, text)
                    Entity(found, it.choice("label", labels), start, end, it.number("score", 0.0, 1.0))
                },
            )
        }
        is Classification -> readScores(fields, head.labels)
        is Similarity -> (raw["labels"] as List<*>?)?.let { asked -> readScores(fields, asked.map { it as String }) }
            ?: Expected.Output
        is Transcription -> {
            val prompt = fields.ints("prompt", 1..1000, TOKEN)
            val tokens = fields.ints("tokens", 0..100_000, TOKEN)
            val rows = head.buckets.first { it.encode == program.name }.rows
            val fits = (prompt + tokens).all { it < head.vocabSize } && prompt.size + tokens.size <= rows
            if (!fits || prompt.size > head.prefillTokens) {
                val most = "at most $rows tokens below ${head.vocabSize}"
                fields.fail("tokens", "expected $most, and a prompt of at most ${head.prefillTokens}")
            }
            Expected.Text(fields.string("text", length = 0..200_000), prompt, tokens)
        }
        is MaskedToken -> {
            val text = raw["text"] as String?
            if (text == null || "pair" in raw || head.maskToken !in text) {
                throw BundleError("$CASES_FILE: cases[$index]: expected one text with ${head.maskToken}")
            }
            Expected.Fills(
                fields.objects("fills", 1..100_000) {
                    Fill(
                        token = it.int("token", 0..Int.MAX_VALUE.toLong()),
                        text = it.string("text", length = 0..200_000),
                        score = it.number("score", 0.0, 1.0),
                        mask = if (it.has("mask")) it.int("mask", 0..1_000_000L) else 0,
                    )
                },
            )
        }
        is Embedding, is Score -> Expected.Output
    }

    private fun readScores(fields: Fields, known: List<String>): Expected {
        val labels = fields.strings("labels", 1..100_000)
        if (labels.sorted() != known.sorted()) fields.fail("labels", "expected each of the labels")
        return Expected.Scores(labels, fields.numbers("scores", labels.size, 0.0, 1.0))
    }

    /** A place in a text, with what stands there. */
    private fun readPlace(fields: Fields, text: String): Triple<String, Int, Int> {
        val found = fields.string("text", length = 0..200_000)
        val (start, end) = listOf("start", "end").map { fields.int(it, 0..200_000L) }
        val count = text.codePointCount(0, text.length)
        val fits = start <= end && end <= count &&
            text.substring(text.offsetByCodePoints(0, start), text.offsetByCodePoints(0, end)) == found
        if (!fits) fields.fail("text", "expected what stands in the text from $start to $end")
        return Triple(found, start, end)
    }

    /** Images are stored as 8-bit values, audio and its outputs in part. */
    private fun inputSpecs(program: ProgramSpec): List<TensorSpec> = when {
        pixels != null -> program.inputs.map { if (it.dtype == "float32") it.copy(dtype = "uint8") else it }
        else -> if (head is Transcription) program.inputs.map(::part) else program.inputs
    }

    private fun outputSpecs(program: ProgramSpec, expected: Expected): List<TensorSpec> {
        if (head !is Transcription || expected !is Expected.Text) return program.outputs
        val shape = listOf(expected.tokens.size + 1, minOf(head.vocabSize, SAMPLED_VALUES))
        return program.outputs.map(::part) + TensorSpec("logits", "float32", shape)
    }

    private fun part(spec: TensorSpec) = TensorSpec(spec.name, spec.dtype, listOf(minOf(spec.size, SAMPLED_VALUES)))

    /** Removes a case's tensors from the file's and checks them against the manifest. */
    private fun take(specs: List<TensorSpec>): Map<String, Tensor> = specs.associate { spec ->
        val key = "$index/${spec.name}"
        val tensor = left.remove(key) ?: throw BundleError("$TENSORS_FILE: the tensor $key is missing")
        if (tensor.dtype != spec.dtype || tensor.shape != spec.shape) {
            throw BundleError(
                "$TENSORS_FILE: $key: expected ${spec.dtype} ${spec.shape}, found ${tensor.dtype} ${tensor.shape}",
            )
        }
        if (!doubles(tensor).all { it.isFinite() }) throw BundleError("$TENSORS_FILE: $key holds NaN or infinity")
        spec.name to tensor
    }

    /** Token ids, masks and types number rows of tables, and not every engine looks how many there are. */
    private fun checkNumbers(inputs: Map<String, Tensor>, program: ProgramSpec) {
        for ((name, tensor) in inputs) {
            val largest = largestNumber(manifest, program, name) ?: continue
            if (doubles(tensor).any { it < 0 || it > largest }) {
                throw BundleError("$TENSORS_FILE: $index/$name: expected numbers from 0 to $largest")
            }
        }
    }

    private fun normalised(tensor: Tensor): Tensor {
        if (pixels == null || tensor !is ByteTensor) return tensor
        return toInput(tensor.data, normalisationTable(pixels), pixels)
    }
}

/** 512 values spread evenly over an array, or all of a smaller one: enough to see that it is another. */
internal fun sampled(values: FloatArray): FloatArray {
    if (values.size <= SAMPLED_VALUES) return values
    return FloatArray(SAMPLED_VALUES) { values[(it.toLong() * values.size / SAMPLED_VALUES).toInt()] }
}
