package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields
import org.edgeformer.core.shorten
import java.util.PriorityQueue

/** Of an id and of a merge's rank: two ids and a rank fit into one number. */
private const val BITS = 21
private const val COUNT = 1 shl BITS

/**
 * Byte pair encoding: the characters of a word are tokens, and of all pairs that merge the one with the lowest rank
 * merges first (Sennrich et al. 2016), in n log n steps.
 *
 * @property prefix of tokens that continue a word; [suffix] of those that end one.
 * @property fuses unknown characters in a row are one token.
 * @property ignoresMerges a word that the vocabulary has is one token.
 * @property bytes the tokens of unknown characters' bytes of UTF-8, in their order; null: there are none.
 */
internal class Bpe private constructor(
    override val vocabulary: Map<String, Int>,
    private val merges: Merges,
    private val prefix: String,
    private val suffix: String,
    override val unknown: String?,
    private val fuses: Boolean,
    private val ignoresMerges: Boolean,
    private val bytes: List<Int?>?,
) : TokenModel {
    private val unknownId = unknown?.let(vocabulary::get)

    override val marksContinuation: Boolean get() = prefix.isNotEmpty()

    override fun tokenize(word: CodePoints, take: (id: Int, start: Int, end: Int) -> Unit) {
        val known = if (ignoresMerges) vocabulary[word.string()] else null
        if (known != null) return take(known, 0, word.size)
        val symbols = symbols(word).apply { merge(merges) }
        // Lengths count bytes of UTF-8 from the word's start, whatever had no token there.
        var (place, passed, start) = Triple(0, 0, 0)
        symbols.forEach { id, length ->
            while (passed + utf8Length(word[place]) <= start) passed += utf8Length(word[place++])
            val first = place
            start += length
            while (passed + utf8Length(word[place]) < start) passed += utf8Length(word[place++])
            take(id, first, place + 1)
        }
    }

    private fun symbols(word: CodePoints): Symbols {
        val symbols = Symbols(word.size)
        var unknowns = 0 // The bytes of an unknown token that is still to be added.
        for (index in 0 until word.size) {
            val character = word.string(index, index + 1)
            val begun = if (index > 0) prefix + character else character
            val id = vocabulary[if (index == word.size - 1) begun + suffix else begun]
            val length = utf8Length(word[index])
            if (id == null) {
                val parts = bytes?.let { ids -> character.toByteArray().map { ids[it.toInt() and 0xFF] } }
                if (parts != null && null !in parts) {
                    parts.forEach { symbols.add(it!!, 1) }
                    continue
                }
            }
            if (unknowns > 0 && (id != null || !fuses)) {
                symbols.add(unknownId!!, unknowns)
                unknowns = 0
            }
            if (id != null) symbols.add(id, length) else if (unknownId != null) unknowns += length
        }
        if (unknowns > 0) symbols.add(unknownId!!, unknowns)
        return symbols
    }

    companion object {
        fun read(fields: Fields): Bpe {
            val vocabulary = HashMap(readVocabulary(fields, 0 until COUNT.toLong()))
            val dropout = fields.optional("dropout") { fields.number("dropout", 0.0, 1.0) } ?: 0.0
            if (dropout != 0.0) fields.fail("dropout", "expected null, found $dropout")
            val (prefix, suffix) = listOf("continuing_subword_prefix", "end_of_word_suffix").map { key ->
                fields.optional(key) { fields.string(key, length = 0..MAX_AFFIX_CHARACTERS) } ?: ""
            }
            val unknown = fields.optional("unk_token") { fields.string("unk_token") }
            if (unknown != null && unknown !in vocabulary) {
                fields.fail("unk_token", "${shorten(unknown)} is no token")
            }
            val bytes = if (fields.optionalBoolean("byte_fallback", false)) byteTokens(vocabulary::get) else null
            if (bytes != null && (prefix + suffix).isNotEmpty()) {
                fields.fail("byte_fallback", "expected no prefix and no suffix beside it")
            }
            return Bpe(
                vocabulary = vocabulary,
                merges = Merges.read(fields, vocabulary, prefix),
                prefix = prefix,
                suffix = suffix,
                unknown = unknown,
                fuses = fields.optionalBoolean("fuse_unk", false),
                ignoresMerges = fields.optionalBoolean("ignore_merges", false),
                bytes = bytes,
            )
        }
    }
}

/** The tokens <0x00> to <0xFF>. */
internal fun <T> byteTokens(find: (String) -> T): List<T> = List(256) { find("<0x%02X>".format(it)) }

/** Pairs of tokens with the ranks of their merges, sorted: each pair and its rank are one number. */
internal class Merges private constructor(private val pairs: LongArray, private val made: IntArray) {
    /** The rank of a pair; -1: it does not merge. Of a pair that occurs twice the last one counts. */
    fun rank(first: Int, second: Int): Int {
        val pair = pair(first, second)
        val found = pairs.binarySearch(pair or (COUNT - 1).toLong())
        val place = if (found >= 0) found else -found - 2
        return if (place >= 0 && pairs[place] and MASK == pair) (pairs[place] and MASK.inv()).toInt() else -1
    }

    /** The token that a merge makes. */
    fun token(rank: Int): Int = made[rank]

    companion object {
        private const val MASK = (COUNT - 1).toLong().inv()

        private fun pair(first: Int, second: Int) = (first.toLong() shl BITS or second.toLong()) shl BITS

        fun read(fields: Fields, vocabulary: Map<String, Int>, prefix: String): Merges {
            val stated = fields.skip("merges") as? List<*> ?: fields.fail("merges", "expected an array")
            val lines = stated.filterNot { it is String && it.startsWith("#version") }
            if (lines.size >= COUNT) fields.fail("merges", "expected less than $COUNT")
            fun token(text: String) = vocabulary[text] ?: fields.fail("merges", "${shorten(text)} is no token")
            val made = IntArray(lines.size)
            val pairs = LongArray(lines.size) { rank ->
                val line = lines[rank]
                val parts = if (line is String) line.split(' ') else line as? List<*>
                val (first, second) = parts?.filterIsInstance<String>()?.takeIf { it.size == 2 && parts.size == 2 }
                    ?: fields.fail("merges[$rank]", "expected two tokens, found ${shorten(line)}")
                if (second.length < prefix.length) fields.fail("merges[$rank]", "${shorten(second)} has no prefix")
                made[rank] = token(first + second.substring(prefix.length))
                pair(token(first), token(second)) or rank.toLong()
            }
            return Merges(pairs.apply { sort() }, made)
        }
    }
}

/** The tokens of a word, which merge; each knows the one before it and the one behind it. */
private class Symbols(capacity: Int) {
    private var ids = IntArray(maxOf(capacity, 4))
    private var lengths = IntArray(ids.size)
    private var count = 0

    fun add(id: Int, length: Int) {
        if (count == ids.size) {
            ids = ids.copyOf(2 * count)
            lengths = lengths.copyOf(2 * count)
        }
        ids[count] = id
        lengths[count++] = length
    }

    fun merge(merges: Merges) {
        val before = IntArray(count) { it - 1 }
        val behind = IntArray(count) { it + 1 }
        val waiting = PriorityQueue<Long>()
        fun offer(place: Int) {
            if (place < 0 || behind[place] >= count) return
            val rank = merges.rank(ids[place], ids[behind[place]])
            if (rank >= 0) waiting.add(rank.toLong() shl 32 or place.toLong())
        }
        for (place in 0 until count) offer(place)
        while (true) {
            val top = waiting.poll() ?: break
            val place = top.toInt()
            val next = behind[place]
            if (lengths[place] == 0 || next >= count) continue
            // A pair that has merged since may have left another one, which makes the same token or is for later.
            val rank = merges.rank(ids[place], ids[next])
            val token = merges.token((top ushr 32).toInt())
            if (rank < 0 || merges.token(rank) != token) continue
            ids[place] = token
            lengths[place] += lengths[next]
            lengths[next] = 0
            behind[place] = behind[next]
            if (behind[next] < count) before[behind[next]] = place
            offer(before[place])
            offer(place)
        }
    }

    inline fun forEach(take: (id: Int, length: Int) -> Unit) {
        for (place in 0 until count) if (lengths[place] > 0) take(ids[place], lengths[place])
    }
}
