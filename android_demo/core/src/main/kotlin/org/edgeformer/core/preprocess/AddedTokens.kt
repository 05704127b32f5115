package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields

/**
 * A token that is found in the text itself, before it is split into words.
 *
 * @property singleWord found only where no character of a word stands beside it.
 * @property lstrip takes the white space before it, too; [rstrip] that behind it.
 * @property normalized found in the normalized text, in its own normalized form.
 */
internal class AddedToken(
    val id: Int,
    val content: String,
    val singleWord: Boolean,
    val lstrip: Boolean,
    val rstrip: Boolean,
    val normalized: Boolean,
) {
    companion object {
        fun read(fields: Fields): AddedToken {
            fields.boolean("special")
            return AddedToken(
                id = fields.int("id", TOKEN_IDS),
                content = fields.string("content", length = 1..MAX_TOKEN_CHARACTERS),
                singleWord = fields.boolean("single_word"),
                lstrip = fields.boolean("lstrip"),
                rstrip = fields.boolean("rstrip"),
                normalized = fields.boolean("normalized"),
            )
        }
    }
}

/**
 * A piece of a text.
 *
 * @property text what is in it.
 * @property token the added token that it is; null: it is to be split into words.
 */
internal class Piece(val text: CodePoints, val token: AddedToken?)

/** Finds added tokens in texts: at each place from the left the longest one. */
internal class AddedTokenMatcher(tokens: List<Pair<CodePoints, AddedToken>>) {
    private val byContent = tokens.associate { (content, token) -> content.string() to token }
    private val table = PrefixTable(byContent.keys)
    private val found = Array(table.size) { byContent.getValue(table[it]) }

    fun split(text: CodePoints): List<Piece> {
        if (table.size == 0) return if (text.size == 0) emptyList() else listOf(Piece(text, null))
        val pieces = ArrayList<Piece>()
        var done = 0
        var next = 0
        while (next < text.size) {
            var token: AddedToken? = null
            var start = next
            var end = next
            table.forEachPrefix(text, next) { place, index ->
                token = found[index]
                end = place
            }
            next = maxOf(end, next + 1)
            val match = token ?: continue
            if (match.singleWord && (text.isWord(start - 1) || text.isWord(end))) continue
            if (match.lstrip) {
                while (start > done && text[start - 1] in Unicode.whiteSpace) start--
                start = maxOf(start, done)
            }
            if (match.rstrip) while (end < text.size && text[end] in Unicode.whiteSpace) end++
            if (start > done) pieces.add(Piece(text.part(done, start), null))
            pieces.add(Piece(text.part(start, end), match))
            done = end
        }
        if (done < text.size) pieces.add(Piece(text.part(done, text.size), null))
        return pieces
    }

    private fun CodePoints.isWord(index: Int) = index in 0 until size && get(index) in Unicode.word
}
