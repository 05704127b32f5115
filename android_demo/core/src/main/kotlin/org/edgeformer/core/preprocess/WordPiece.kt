package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields
import org.edgeformer.core.shorten

/** Of a word, whose time is cubic in it. */
private const val MAX_WORD_CHARACTERS = 200L

/** What makes tokens of words. */
internal interface TokenModel {
    /** The tokens of the vocabulary with their ids. */
    val vocabulary: Map<String, Int>

    /** The token for what the vocabulary does not have, as transformers asks for it; null: there is none. */
    val unknown: String?

    /** Whether pieces that continue a word look otherwise than those that begin one. */
    val marksContinuation: Boolean

    /** Takes each token of a word, and from which to before which of its characters it reaches. */
    fun tokenize(word: CodePoints, take: (id: Int, start: Int, end: Int) -> Unit)
}

internal fun readModel(fields: Fields): TokenModel =
    // The oldest files of BPE name no type.
    when (if (fields.has("type")) fields.choice("type", listOf("WordPiece", "BPE", "Unigram")) else "BPE") {
        "WordPiece" -> WordPiece.read(fields)
        "BPE" -> Bpe.read(fields)
        else -> Unigram.read(fields)
    }

internal fun readVocabulary(fields: Fields, ids: LongRange): Map<String, Int> =
    fields.table("vocab", 0..Int.MAX_VALUE, 0..MAX_TOKEN_CHARACTERS) { all, token -> all.int(token, ids) }

/**
 * The longest piece of the vocabulary first, then the longest that continues it (Devlin et al. 2019).
 *
 * @property prefix of pieces that continue a word.
 * @property longestWord in characters; longer words have no pieces.
 */
internal class WordPiece private constructor(
    override val vocabulary: Map<String, Int>,
    private val prefix: String,
    override val unknown: String,
    private val longestWord: Int,
) : TokenModel {
    private val unknownId = vocabulary.getValue(unknown)

    override val marksContinuation: Boolean get() = prefix.isNotEmpty()

    override fun tokenize(word: CodePoints, take: (id: Int, start: Int, end: Int) -> Unit) {
        val ids = ArrayList<Int>()
        val ends = ArrayList<Int>()
        var start = 0
        while (start < word.size && word.size <= longestWord) {
            var end = word.size
            var id: Int? = null
            while (end > start && id == null) {
                val piece = word.string(start, end)
                id = vocabulary[if (start > 0) prefix + piece else piece]
                if (id == null) end--
            }
            ids.add(id ?: break)
            ends.add(end)
            start = end
        }
        if (start < word.size) return take(unknownId, 0, word.size)
        ids.forEachIndexed { index, id -> take(id, if (index == 0) 0 else ends[index - 1], ends[index]) }
    }

    companion object {
        fun read(fields: Fields): WordPiece {
            val vocabulary = readVocabulary(fields, TOKEN_IDS)
            val unknown = fields.string("unk_token")
            if (unknown !in vocabulary) fields.fail("unk_token", "${shorten(unknown)} is no token")
            return WordPiece(
                vocabulary = HashMap(vocabulary),
                prefix = fields.string("continuing_subword_prefix", length = 0..MAX_AFFIX_CHARACTERS),
                unknown = unknown,
                longestWord = fields.int("max_input_chars_per_word", 0..MAX_WORD_CHARACTERS),
            )
        }
    }
}
