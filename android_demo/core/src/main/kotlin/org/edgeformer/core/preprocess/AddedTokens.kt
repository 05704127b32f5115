package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields

/**
 * A token that is found in the text itself, before it is split into words.
 *
 * @property lstrip takes the white space before it, too; [rstrip] that behind it.
 * @property normalized found in the normalized text, in its own normalized form.
 */
internal class AddedToken(
    val id: Int,
    val content: String,
    val lstrip: Boolean,
    val rstrip: Boolean,
    val normalized: Boolean,
) {
    companion object {
        fun read(fields: Fields): AddedToken {
            fields.boolean("special")
            if (fields.boolean("single_word")) {
                throw BundleError("tokenizer: added tokens with single_word are not supported: convert without them")
            }
            return AddedToken(
                id = fields.int("id", 0..Int.MAX_VALUE.toLong()),
                content = fields.string("content", length = 1..MAX_TOKEN_CHARACTERS),
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
    private val byFirst = tokens.filter { it.first.size > 0 }
        .sortedByDescending { it.first.size }
        .groupBy { it.first[0] }

    fun split(text: CodePoints): List<Piece> {
        val pieces = ArrayList<Piece>()
        var done = 0
        var next = 0
        while (next < text.size) {
            val (content, token) = byFirst[text[next]]?.firstOrNull { matches(text, next, it.first) }
                ?: run { next++; null } ?: continue
            var start = next
            var end = next + content.size
            next = end
            if (token.lstrip) while (start > done && text[start - 1] in Unicode.whiteSpace) start--
            if (token.rstrip) while (end < text.size && text[end] in Unicode.whiteSpace) end++
            start = maxOf(start, done)
            if (start > done) pieces.add(Piece(text.part(done, start), null))
            pieces.add(Piece(text.part(start, end), token))
            done = end
        }
        if (done < text.size) pieces.add(Piece(text.part(done, text.size), null))
        return pieces
    }

    private fun matches(text: CodePoints, at: Int, content: CodePoints): Boolean {
        if (at + content.size > text.size) return false
        for (index in 0 until content.size) if (text[at + index] != content[index]) return false
        return true
    }
}
