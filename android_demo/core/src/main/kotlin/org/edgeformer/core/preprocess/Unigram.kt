package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields
import org.edgeformer.core.shorten

/** What an unknown character costs beside the least likely token. */
private const val UNKNOWN_PENALTY = 10.0

/**
 * The most likely tokens of a word where each has a probability of its own (Kudo 2018), by Viterbi's algorithm. Unknown
 * characters in a row are one token, or their bytes.
 *
 * @property scores log probabilities by id.
 */
internal class Unigram private constructor(
    private val tokens: List<String>,
    private val scores: DoubleArray,
    private val unknownId: Int,
    hasBytes: Boolean,
) : TokenModel {
    override val vocabulary: Map<String, Int> = HashMap<String, Int>().also { ids ->
        tokens.forEachIndexed { id, token -> ids[token] = id }
    }
    private val table = PrefixTable(tokens)
    private val ids = IntArray(table.size) { vocabulary.getValue(table[it]) }
    private val unknownScore = scores.min() - UNKNOWN_PENALTY
    private val bytes = if (hasBytes) byteTokens(vocabulary::get) else null

    override val unknown: String? get() = null
    override val marksContinuation: Boolean get() = false

    override fun tokenize(word: CodePoints, take: (id: Int, start: Int, end: Int) -> Unit) {
        val best = best(word)
        var end = 0
        while (end < word.size) {
            val start = end
            val id = best[start] and ID
            end = (best[start] ushr PLACE).toInt()
            if (id.toInt() != unknownId) {
                take(id.toInt(), start, end)
                continue
            }
            while (end < word.size && (best[end] and ID).toInt() == unknownId) end = (best[end] ushr PLACE).toInt()
            takeUnknown(word, start, end, take)
        }
    }

    private fun takeUnknown(word: CodePoints, start: Int, end: Int, take: (id: Int, start: Int, end: Int) -> Unit) {
        val text = word.string(start, end)
        val parts = if (bytes == null) null else text.toByteArray().map { bytes[it.toInt() and 0xFF] }
        val known = vocabulary[text]
        when {
            known != null -> take(known, start, end)
            parts != null && null !in parts -> parts.forEach { take(it!!, start, end) }
            else -> take(unknownId, start, end)
        }
    }

    /** For each place where a token of the best path starts: where it ends, and its id. */
    private fun best(word: CodePoints): LongArray {
        val total = DoubleArray(word.size + 1)
        val starts = IntArray(word.size + 1) { -1 }
        val found = IntArray(word.size + 1)
        fun offer(start: Int, end: Int, id: Int, score: Double) {
            val sum = score + total[start]
            if (starts[end] >= 0 && sum <= total[end]) return
            total[end] = sum
            starts[end] = start
            found[end] = id
        }
        for (start in 0 until word.size) {
            var isKnown = false
            table.forEachPrefix(word, start) { end, index ->
                offer(start, end, ids[index], scores[ids[index]])
                if (end == start + 1) isKnown = true
            }
            if (!isKnown) offer(start, start + 1, unknownId, unknownScore)
        }
        val path = LongArray(word.size)
        var end = word.size
        while (end > 0) {
            path[starts[end]] = end.toLong() shl PLACE or found[end].toLong()
            end = starts[end]
        }
        return path
    }

    companion object {
        private const val PLACE = 32
        private const val ID = 0xFFFFFFFFL
        private const val MAX_TOKENS = 1 shl 21

        fun read(fields: Fields): Unigram {
            val stated = fields.skip("vocab") as? List<*> ?: fields.fail("vocab", "expected an array")
            if (stated.size !in 1..MAX_TOKENS) fields.fail("vocab", "expected 1 to $MAX_TOKENS tokens")
            val tokens = ArrayList<String>(stated.size)
            val scores = DoubleArray(stated.size) { id ->
                val entry = stated[id] as? List<*>
                val token = entry?.getOrNull(0) as? String
                val score = entry?.getOrNull(1) as? Number
                if (token == null || score == null || entry.size != 2 || token.length > 2 * MAX_TOKEN_CHARACTERS) {
                    fields.fail("vocab[$id]", "expected a token and its score, found ${shorten(entry)}")
                }
                tokens.add(token)
                score.toDouble()
            }
            return Unigram(
                tokens = tokens,
                scores = scores,
                unknownId = fields.int("unk_id", 0 until stated.size.toLong()),
                hasBytes = fields.optionalBoolean("byte_fallback", false),
            )
        }
    }
}
