package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.StrictJson
import org.edgeformer.core.shorten

private const val MAX_TOKENIZER_BYTES = 64 shl 20

/** Of a word, whose time is cubic in it. */
private const val MAX_WORD_CHARACTERS = 200L
internal const val MAX_TOKEN_CHARACTERS = 1024

/** Of what is written before pieces that continue a word. */
private const val MAX_AFFIX_CHARACTERS = 64
private const val MAX_TEMPLATE_PIECES = 32
private val IDS = 0..Int.MAX_VALUE.toLong()

/** A text or its second: the rows of a model's embedding of types. */
private val TYPES = 0..1L

/**
 * Token ids of a text or pair with its special tokens, and the type of each: 0 for the first text, 1 for the second.
 *
 * @property truncated tokens were left out, from the end of the longer text.
 */
internal class Encoding(val ids: IntArray, val types: IntArray, val truncated: Boolean)

/**
 * A tokenizer of BERT's kind from a file of the tokenizers library: added tokens are found, the rest is normalized,
 * split at white space and punctuation, and each word into the longest pieces of the vocabulary (Devlin et al. 2019).
 */
internal class WordPieceTokenizer private constructor(
    private val normalizer: BertNormalizer?,
    added: List<AddedToken>,
    private val model: WordPiece,
    private val single: List<Part>,
    private val pair: List<Part>,
) {
    private val raw = AddedTokenMatcher(added.filter { !it.normalized }.map { CodePoints.of(it.content) to it })
    private val normalized = AddedTokenMatcher(added.filter { it.normalized }.map { normalize(it.content) to it })

    /** One more than the largest id that can come out. */
    val size: Int = 1 + maxOf(model.largestId, added.maxOfOrNull { it.id } ?: -1)

    /** The special tokens around one text, and around two. */
    val specialTokens: Int = single.count { it.text == null }
    val specialTokensOfPair: Int = pair.count { it.text == null }

    /**
     * Encodes a text, or a pair of them, in at most `longest` tokens, special ones included; there must be room for
     * these.
     */
    fun encode(text: String, second: String?, longest: Int): Encoding {
        val room = longest - if (second == null) specialTokens else specialTokensOfPair
        val texts = listOfNotNull(tokens(text), second?.let(::tokens))
        val lengths = truncated(texts.map { it.size }, room)
        val parts = if (second == null) single else pair
        val ids = ArrayList<Int>()
        val types = ArrayList<Int>()
        for (part in parts) {
            val found = if (part.text == null) listOf(part.id) else texts[part.text].subList(0, lengths[part.text])
            ids.addAll(found)
            repeat(found.size) { types.add(part.type) }
        }
        return Encoding(ids.toIntArray(), types.toIntArray(), lengths != texts.map { it.size })
    }

    /** Lengths that add up to at most `room`; the longest loses first, and of two long ones the second keeps more. */
    private fun truncated(lengths: List<Int>, room: Int): List<Int> {
        if (lengths.sum() <= room) return lengths
        if (lengths.size == 1) return listOf(room)
        val shorter = lengths.min()
        // What is left where both are cut; else the shorter one stays whole and the other gets the rest.
        val (least, most) = if (2 * shorter >= room) room / 2 to room - room / 2 else shorter to room - shorter
        return if (lengths[0] <= lengths[1]) listOf(least, most) else listOf(most, least)
    }

    private fun tokens(text: String): List<Int> {
        val found = ArrayList<Int>()
        for (piece in raw.split(CodePoints.of(text))) {
            if (piece.text == null) {
                found.add(piece.id)
                continue
            }
            for (inner in normalized.split(normalizer?.normalize(piece.text) ?: piece.text)) {
                if (inner.text == null) found.add(inner.id) else addWords(inner.text, found)
            }
        }
        return found
    }

    private fun addWords(text: CodePoints, found: MutableList<Int>) {
        var start = 0
        for (index in 0..text.size) {
            val isMark = index < text.size && text[index] in Unicode.punctuation
            if (index < text.size && !isMark && text[index] !in Unicode.whiteSpace) continue
            if (index > start) model.addPieces(text.part(start, index), found)
            if (isMark) model.addPieces(text.part(index, index + 1), found)
            start = index + 1
        }
    }

    private fun normalize(content: String): CodePoints {
        val codes = CodePoints.of(content)
        return normalizer?.normalize(codes) ?: codes
    }

    companion object {
        /**
         * Opens a file of the tokenizers library.
         *
         * @param data its bytes.
         * @param name of the file, for messages.
         * @throws BundleError it is no such file, or does what only that library can do.
         */
        fun read(data: ByteArray, name: String): WordPieceTokenizer = try {
            Fields.read(StrictJson.parse(data, name, MAX_TOKENIZER_BYTES), name, ::readTokenizer)
        } catch (error: BundleError) {
            throw BundleError("${shorten(name)}: not a tokenizer that this app can follow: ${error.message}", error)
        }

        private fun readTokenizer(fields: Fields): WordPieceTokenizer {
            // What a pipeline decides for itself, and what only the way back to text needs.
            listOf("version", "truncation", "padding", "decoder").filter(fields::has).forEach(fields::skip)
            fields.obj("pre_tokenizer") { it.choice("type", listOf("BertPreTokenizer")) }
            val (single, pair) = if (fields.peek("post_processor") == null) {
                fields.skip("post_processor")
                val text = listOf(Part(0, 0, 0))
                text to text + Part(1, 0, 1)
            } else {
                fields.obj("post_processor", ::readFrame)
            }
            return WordPieceTokenizer(
                normalizer = if (fields.peek("normalizer") == null) {
                    fields.skip("normalizer")
                    null
                } else {
                    fields.obj("normalizer", BertNormalizer::read)
                },
                added = fields.objects("added_tokens", 0..100_000, AddedToken::read),
                model = fields.obj("model", WordPiece::read),
                single = single,
                pair = pair,
            )
        }
    }
}

/** A part of what surrounds texts: number `text` of them, or a special token's id; with its token type. */
internal class Part(val text: Int?, val id: Int, val type: Int)

private fun readFrame(fields: Fields): Pair<List<Part>, List<Part>> =
    if (fields.choice("type", listOf("TemplateProcessing", "BertProcessing")) == "BertProcessing") {
        val (sep, cls) = listOf("sep", "cls").map { key ->
            val value = fields.skip(key) as? List<*>
            val id = value?.getOrNull(1) as? Long ?: fields.fail(key, "expected a token and its id")
            id.toInt()
        }
        val first = listOf(Part(null, cls, 0), Part(0, 0, 0), Part(null, sep, 0))
        first to first + listOf(Part(1, 0, 1), Part(null, sep, 1))
    } else {
        val ids = fields.table("special_tokens", 0..1000, 0..1000) { all, token ->
            all.obj(token) {
                it.skip("id")
                it.skip("tokens")
                it.ints("ids", 1..1, IDS).single()
            }
        }
        readTemplate(fields, "single", ids, listOf(0)) to readTemplate(fields, "pair", ids, listOf(0, 1))
    }

/** A template, in which each of `texts` stands once and in order. */
private fun readTemplate(fields: Fields, key: String, ids: Map<String, Int>, texts: List<Int>): List<Part> {
    val parts = fields.objects(key, 1..MAX_TEMPLATE_PIECES) { readPart(it, ids) }
    if (parts.mapNotNull { it.text } != texts) fields.fail(key, "expected each text once")
    return parts
}

private fun readPart(fields: Fields, ids: Map<String, Int>): Part =
    if (fields.has("SpecialToken")) {
        fields.obj("SpecialToken") { token ->
            val name = token.string("id")
            val id = ids[name] ?: token.fail("id", "unknown special token ${shorten(name)}")
            Part(null, id, token.int("type_id", TYPES))
        }
    } else {
        fields.obj("Sequence") { text ->
            Part(if (text.choice("id", listOf("A", "B")) == "A") 0 else 1, 0, text.int("type_id", TYPES))
        }
    }

/**
 * The vocabulary, and how words become pieces of it: the longest piece first, then the longest that continues it.
 *
 * @property prefix of pieces that continue a word.
 * @property unknown the id of words that have no pieces.
 * @property longestWord in characters; longer words have no pieces.
 */
internal class WordPiece private constructor(
    private val vocabulary: Map<String, Int>,
    private val prefix: String,
    private val unknown: Int,
    private val longestWord: Int,
) {
    val largestId: Int get() = vocabulary.values.maxOrNull() ?: -1

    fun addPieces(word: CodePoints, found: MutableList<Int>) {
        val before = found.size
        var start = 0
        while (start < word.size && word.size <= longestWord) {
            var end = word.size
            var id: Int? = null
            while (end > start && id == null) {
                val piece = word.string(start, end)
                id = vocabulary[if (start > 0) prefix + piece else piece]
                if (id == null) end--
            }
            if (id == null) break
            found.add(id)
            start = end
        }
        if (start < word.size) {
            while (found.size > before) found.removeAt(found.size - 1)
            found.add(unknown)
        }
    }

    companion object {
        fun read(fields: Fields): WordPiece {
            fields.choice("type", listOf("WordPiece"))
            val all = 0..Int.MAX_VALUE
            val vocabulary = fields.table("vocab", all, 0..MAX_TOKEN_CHARACTERS) { ids, token -> ids.int(token, IDS) }
            val unknown = fields.string("unk_token")
            return WordPiece(
                vocabulary = HashMap(vocabulary),
                prefix = fields.string("continuing_subword_prefix", length = 0..MAX_AFFIX_CHARACTERS),
                unknown = vocabulary[unknown] ?: fields.fail("unk_token", "${shorten(unknown)} is no token"),
                longestWord = fields.int("max_input_chars_per_word", 0..MAX_WORD_CHARACTERS),
            )
        }
    }
}
