package org.edgeformer.core

import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.ImagePreprocessing

internal val WORD = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
private val NAME = Regex("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
private val ENTRY = Regex("[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
private val SHA256 = Regex("[0-9a-f]{64}")
private val VERSION = Regex("(0|[1-9][0-9]{0,5})(\\.(0|[1-9][0-9]{0,5})){2}")
private val OS_VERSION = Regex("[0-9]{1,4}(\\.[0-9]{1,4}){0,2}")

/** Says that a bundle is newer before a check that cannot know its keys says something less helpful. */
internal fun checkVersion(value: Any?) {
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

/** C0, DEL, C1, and what turns the direction of the text behind it: terminals and screens obey them. */
private fun isControl(character: Char) =
    character < ' ' || character in '\u007f'..'\u009f' ||
        character in '\u202a'..'\u202e' || character in '\u2066'..'\u2069'

/** No text of a manifest, key or value, holds a control character. */
internal fun checkCharacters(value: Any?) {
    when (value) {
        is String -> if (value.any(::isControl)) {
            throw BundleError("$MANIFEST_NAME: ${shorten(value)} holds a control character")
        }
        is Map<*, *> -> value.forEach { (key, child) ->
            checkCharacters(key)
            checkCharacters(child)
        }
        is List<*> -> value.forEach(::checkCharacters)
    }
}

internal fun readManifest(fields: Fields): BundleManifest {
    fields.int("format_version", FORMAT_VERSION..FORMAT_VERSION.toLong())
    // It answers several texts at a time, which nothing here does.
    if (fields.has("packed")) fields.obj("packed", ::readProgram)
    return BundleManifest(
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

private fun readPreprocessing(fields: Fields): Preprocessing =
    when (fields.choice("kind", listOf("text", "image", "image-text", "audio"))) {
        "text" -> readText(fields)
        "image" -> ImagePreprocessing.read(fields)
        "image-text" -> ImageTextPreprocessing(
            image = fields.obj("image") {
                it.choice("kind", listOf("image"))
                ImagePreprocessing.read(it)
            },
            text = fields.obj("text") {
                it.choice("kind", listOf("text"))
                readText(it)
            },
        )
        else -> AudioPreprocessing.read(fields)
    }

private fun readText(fields: Fields) = TextPreprocessing(
    tokenizer = fields.optionalString("tokenizer"),
    padTokenId = fields.int("pad_token_id", 0..Int.MAX_VALUE.toLong()),
    vocabSize = fields.optionalLong("vocab_size", 1..(1L shl 31))?.coerceAtMost(Int.MAX_VALUE.toLong())?.toInt(),
)

private fun readActivation(fields: Fields): Activation =
    fields.choice("activation", Activation.values().map { it.key })
        .let { key -> Activation.values().first { it.key == key } }

private val POSTPROCESSING_KINDS =
    listOf("classification", "embedding", "score", "fills", "spans", "entities", "similarity", "transcription")

private fun readPostprocessing(fields: Fields): Postprocessing =
    when (fields.choice("kind", POSTPROCESSING_KINDS)) {
        "classification" -> Classification(
            labels = fields.strings("labels", 1..100_000, 1..500),
            activation = readActivation(fields),
        )
        "similarity" -> Similarity(
            dim = fields.int("dim", 1..1_000_000L),
            scale = fields.number("scale", 0.0, 1e6, aboveLeast = true),
            bias = fields.number("bias", -1e6, 1e6),
            activation = readActivation(fields),
        )
        "embedding" -> Embedding(fields.int("dim", 1..1_000_000L), fields.boolean("normalized"))
        "score" -> Score(fields.choice("activation", listOf("none", "sigmoid")) == "sigmoid")
        "spans" -> SpanExtraction(
            stride = fields.int("stride", 0..1_000_000L),
            maxAnswerTokens = fields.int("max_answer_tokens", 1..512L),
        )
        "entities" -> TokenLabels(
            labels = fields.strings("labels", 1..100_000, 1..500),
            outside = fields.strings("outside", 0..1000, 1..500),
            aggregation = fields.choice("aggregation", Aggregation.values().map { it.key })
                .let { key -> Aggregation.values().first { it.key == key } },
            stride = fields.int("stride", 0..1_000_000L),
        )
        "fills" -> MaskedToken(
            maskToken = fields.string("mask_token", length = 1..500),
            maskTokenId = fields.int("mask_token_id", 0..Int.MAX_VALUE.toLong()),
        )
        else -> Transcription.read(fields)
    }
