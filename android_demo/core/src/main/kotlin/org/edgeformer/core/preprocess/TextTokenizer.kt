package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.StrictJson
import org.edgeformer.core.shorten

private const val MAX_TOKENIZER_BYTES = 64 shl 20

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
 * A tokenizer from a file of the tokenizers library: added tokens are found, the rest is normalized and split into
 * words, and these into tokens.
 */
internal class TextTokenizer private constructor(
    private val normalizer: Normalizer?,
    private val preTokenizer: PreTokenizer?,
    added: List<AddedToken>,
    private val model: TokenModel,
    private val frame: Frame,
) {
    private val raw = AddedTokenMatcher(added.filter { !it.normalized }.map { CodePoints.of(it.content) to it })
    private val normalized = AddedTokenMatcher(added.filter { it.normalized }.map { normalize(it.content) to it })

    /** One more than the largest id that can come out. */
    val size: Int = 1 + maxOf(model.vocabulary.values.maxOrNull() ?: -1, added.maxOfOrNull { it.id } ?: -1)

    /** Tokens by id, for what their texts tell. */
    private val contents by lazy {
        val found = HashMap<Int, String>()
        model.vocabulary.forEach { (token, id) -> found[id] = token }
        added.forEach { found[it.id] = it.content }
        found
    }

    private val ids: Map<String, Int> by lazy { contents.entries.associate { it.value to it.key } }

    /** A token as the vocabulary has it; empty: it has none of that id. */
    fun text(token: Int): String = contents[token] ?: ""

    /** The id of a token, by how the vocabulary has it. */
    fun id(token: String): Int? = ids[token]

    /** The special tokens around one text, and around two. */
    val specialTokens: Int = frame.single.count { it.text == null }
    val specialTokensOfPair: Int = frame.pair.count { it.text == null }

    /**
     * Encodes a text, or a pair of them, in at most `longest` tokens, special ones included; there must be room for
     * these.
     */
    fun encode(text: String, second: String?, longest: Int): Encoding {
        val room = longest - if (second == null) specialTokens else specialTokensOfPair
        val texts = listOfNotNull(text, second).map { given ->
            ArrayList<Int>().also { ids -> forEachToken(CodePoints.of(given)) { id, _, _, _ -> ids.add(id) } }
        }
        val lengths = truncated(texts.map { it.size }, room)
        val ids = ArrayList<Int>()
        val types = ArrayList<Int>()
        for (part in if (second == null) frame.single else frame.pair) {
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
        for (part in if (second == null) frame.single else frame.pair) {
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
        forEachToken(given) { id, place, number, added ->
            val content = contents.getValue(id)
            val (start, end) = frame.trim?.trimmed(place, added ?: content, isFirst = found.isEmpty()) ?: place
            val continues = when {
                content == model.unknown -> false
                model.marksContinuation -> content.codePointCount(0, content.length) != end - start
                else -> start > 0 && (start - 1..start).none { it < end(start, given) && given[it] == ' '.code }
            }
            found.add(Token(id, start, end, number, continues))
        }
        return found
    }

    private fun end(start: Int, given: CodePoints) = minOf(start + 1, given.size)

    /** Takes each token's id, its place in the given text, its word's number and, of an added token, what it is. */
    private fun forEachToken(given: CodePoints, take: (id: Int, place: Place, number: Int, added: String?) -> Unit) {
        var number = 0
        for (piece in raw.split(given)) {
            val inner = if (piece.token != null) {
                listOf(piece)
            } else {
                normalized.split(normalizer?.normalize(piece.text) ?: piece.text)
            }
            for (part in inner) {
                if (part.token != null) {
                    take(part.token.id, place(part.text, 0, part.text.size), number++, part.text.string())
                    continue
                }
                for (word in preTokenizer?.split(part.text) ?: listOf(part.text)) {
                    model.tokenize(word) { id, start, end -> take(id, place(word, start, end), number, null) }
                    number++
                }
            }
        }
    }

    private fun place(word: CodePoints, start: Int, end: Int) = Place(word.origin(start), word.origin(end - 1) + 1)

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
        fun read(data: ByteArray, name: String): TextTokenizer = try {
            Fields.read(StrictJson.parse(data, name, MAX_TOKENIZER_BYTES), name, ::readTokenizer)
        } catch (error: BundleError) {
            throw BundleError("${shorten(name)}: not a tokenizer that this app can follow: ${error.message}", error)
        }

        private fun readTokenizer(fields: Fields): TextTokenizer {
            // What a pipeline decides for itself, and what only the way back to text needs.
            listOf("version", "truncation", "padding", "decoder").filter(fields::has).forEach(fields::skip)
            val model = fields.obj("model", ::readModel)
            val frame = fields.optional("post_processor") { fields.obj("post_processor", ::readFrame) } ?: Frame.none
            if (frame.trim != null && model is Unigram) {
                fields.fail("post_processor", "trim_offsets has no reader here beside Unigram")
            }
            return TextTokenizer(
                fields.optional("normalizer") { fields.obj("normalizer", ::readNormalizer) },
                fields.optional("pre_tokenizer") { fields.obj("pre_tokenizer", ::readPreTokenizer) },
                fields.objects("added_tokens", 0..100_000, AddedToken::read),
                model,
                frame,
            )
        }
    }
}
