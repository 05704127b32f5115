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
 * A token of a text.
 *
 * @property start the first character that something of it comes from, in the text that was given.
 * @property end the character behind the last one.
 * @property word the number of its word in the text.
 * @property continues it continues the word of the token before it, as transformers sees it.
 */
internal class Token(val id: Int, val start: Int, val end: Int, val word: Int, val continues: Boolean)

/**
 * A text or pair with its special tokens, whole.
 *
 * @property tokens null for special ones.
 * @property texts the number of each token's text, -1 of special ones.
 */
internal class WholeEncoding(val ids: IntArray, val types: IntArray, val tokens: List<Token?>, val texts: IntArray)

/**
 * A tokenizer of BERT's kind from a file of the tokenizers library: added tokens are found, the rest is normalized,
 * split at white space and punctuation, and each word into the longest pieces of the vocabulary (Devlin et al. 2019).
 */
internal class WordPieceTokenizer private constructor(
    private val normalizer: BertNormalizer?,
    private val added: List<AddedToken>,
    private val model: WordPiece,
    private val single: List<Part>,
    private val pair: List<Part>,
) {
    private val raw = AddedTokenMatcher(added.filter { !it.normalized }.map { CodePoints.of(it.content) to it })
    private val normalized = AddedTokenMatcher(added.filter { it.normalized }.map { normalize(it.content) to it })

    /** One more than the largest id that can come out. */
    val size: Int = 1 + maxOf(model.largestId, added.maxOfOrNull { it.id } ?: -1)

    private val texts: Map<Int, String> by lazy { model.texts + added.associate { it.id to it.content } }
    private val ids: Map<String, Int> by lazy { texts.entries.associate { it.value to it.key } }

    /** A token as the vocabulary has it; empty: it has none of that id. */
    fun text(token: Int): String = texts[token] ?: ""

    /** The id of a token, by how the vocabulary has it. */
    fun id(token: String): Int? = ids[token]

    /** The special tokens around one text, and around two. */
    val specialTokens: Int = single.count { it.text == null }
    val specialTokensOfPair: Int = pair.count { it.text == null }

    /**
     * Encodes a text, or a pair of them, in at most `longest` tokens, special ones included; there must be room for
     * these.
     */
    fun encode(text: String, second: String?, longest: Int): Encoding {
        val room = longest - if (second == null) specialTokens else specialTokensOfPair
        val texts = listOfNotNull(tokens(text), second?.let(::tokens)).map { found -> found.map { it.id } }
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

    /** Encodes a text, or a pair of them, and cuts nothing. */
    fun encodeWhole(text: String, second: String?): WholeEncoding {
        val texts = listOfNotNull(tokens(text), second?.let(::tokens))
        val ids = ArrayList<Int>()
        val types = ArrayList<Int>()
        val tokens = ArrayList<Token?>()
        val numbers = ArrayList<Int>()
        for (part in if (second == null) single else pair) {
            val found = if (part.text == null) listOf(null) else texts[part.text]
            for (token in found) {
                ids.add(token?.id ?: part.id)
                types.add(part.type)
                tokens.add(token)
                numbers.add(part.text ?: -1)
            }
        }
        return WholeEncoding(ids.toIntArray(), types.toIntArray(), tokens, numbers.toIntArray())
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

    private fun tokens(text: String): List<Token> {
        val given = CodePoints.of(text)
        val found = ArrayList<Token>()
        for (piece in raw.split(given)) {
            if (piece.token != null) {
                found.add(model.added(piece, piece.token, found.nextWord()))
                continue
            }
            for (inner in normalized.split(normalizer?.normalize(piece.text) ?: piece.text)) {
                val token = inner.token
                if (token == null) addWords(inner.text, found) else found.add(model.added(inner, token, found.nextWord()))
            }
        }
        return if (model.marksContinuation) found else found.map { it.afterSpace(given, model.isUnknown(it.id)) }
    }

    private fun List<Token>.nextWord() = if (isEmpty()) 0 else last().word + 1

    private fun addWords(text: CodePoints, found: MutableList<Token>) {
        var start = 0
        for (index in 0..text.size) {
            val isMark = index < text.size && text[index] in Unicode.punctuation
            if (index < text.size && !isMark && text[index] !in Unicode.whiteSpace) continue
            if (index > start) model.addPieces(text.part(start, index), found, found.nextWord())
            if (isMark) model.addPieces(text.part(index, index + 1), found, found.nextWord())
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

/** The same, continuing a word where no space stands before it and it begins with none. */
private fun Token.afterSpace(given: CodePoints, isUnknown: Boolean): Token {
    val spaced = start == 0 || (start - 1..start).any { it < given.size && given[it] == ' '.code }
    return Token(id, start, end, word, continues = !isUnknown && !spaced)
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
    /** Every token by its id. */
    val texts: Map<Int, String> get() = vocabulary.entries.associate { it.value to it.key }

    val largestId: Int get() = vocabulary.values.maxOrNull() ?: -1

    /** Whether pieces that continue a word look otherwise than those that begin one. */
    val marksContinuation: Boolean get() = prefix.isNotEmpty()

    private val prefixLength = prefix.codePointCount(0, prefix.length)

    fun isUnknown(id: Int) = id == unknown

    /** An added token that was found. */
    fun added(piece: Piece, token: AddedToken, number: Int): Token {
        val length = token.content.codePointCount(0, token.content.length)
        return token(token.id, piece.text, 0, piece.text.size, length, number)
    }

    /** A token of a part of a word, whose own length is that of what the vocabulary has. */
    private fun token(id: Int, word: CodePoints, start: Int, end: Int, length: Int, number: Int): Token {
        val (first, behind) = word.origin(start) to word.origin(end - 1) + 1
        return Token(id, first, behind, number, continues = id != unknown && length != behind - first)
    }

    fun addPieces(word: CodePoints, found: MutableList<Token>, number: Int) {
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
            found.add(token(id, word, start, end, end - start + if (start > 0) prefixLength else 0, number))
            start = end
        }
        if (start < word.size) {
            while (found.size > before) found.removeAt(found.size - 1)
            found.add(token(unknown, word, 0, word.size, 0, number))
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
