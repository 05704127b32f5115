package org.edgeformer.core.preprocess

/**
 * Sets of code points and mappings of them, as the tokenizers library has them: platforms know another Unicode.
 *
 * tests/golden/make_unicode.py writes the tables and explains their encoding.
 */
internal object Unicode {
    /** Characters that cleaning removes. */
    val removed = CodePointSet(UnicodeTables.REMOVED)

    /** Characters that cleaning makes a space. */
    val blank = CodePointSet(UnicodeTables.BLANK)

    /** Characters that get spaces around them. */
    val ideographs = CodePointSet(UnicodeTables.IDEOGRAPHS)

    /** Marks that stripping of accents removes, after decomposition. */
    val nonspacing = CodePointSet(UnicodeTables.NONSPACING)

    /** Characters that separate words. */
    val whiteSpace = CodePointSet(UnicodeTables.WHITE_SPACE)

    /** Characters that are words of their own. */
    val punctuation = CodePointSet(UnicodeTables.PUNCTUATION)

    /** Marks that `StripAccents` removes. */
    val marks = CodePointSet(UnicodeTables.MARKS)

    /** Characters of words, where a step asks for these. */
    val word = CodePointSet(UnicodeTables.WORD)

    /** Characters that `Digits` takes for digits. */
    val numeric = CodePointSet(UnicodeTables.NUMERIC)

    private val combining = HashMap<Int, Int>().also { found ->
        ranges(UnicodeTables.COMBINING) { start, end, rank -> for (code in start until end) found[code] = rank }
    }
    private val decomposed = mapping(UnicodeTables.DECOMPOSED)
    private val lowered = mapping(UnicodeTables.LOWERED)
    private val compatible by lazy { mapping(UnicodeTables.COMPATIBLE) }
    private val compositions by lazy(::compositions)
    private val extending by lazy { CodePointSet(UnicodeTables.EXTENDING) }
    private val prepended by lazy { CodePointSet(UnicodeTables.PREPENDED) }
    private val controls by lazy { CodePointSet(UnicodeTables.CONTROLS) }

    /** The sets of general categories that patterns name. */
    val categories: Map<String, CodePointSet> by lazy {
        val letters = listOf("Lu", "Ll", "Lt", "Lm", "Lo")
        val numbers = (letters + listOf("M", "N")).mapIndexed { index, name -> name to index + 1 }
        val singles = numbers.associate { (name, number) -> name to CodePointSet(UnicodeTables.CATEGORIES, setOf(number)) }
        singles + ("L" to CodePointSet(UnicodeTables.CATEGORIES, letters.indices.map { it + 1 }.toSet()))
    }

    /** Lower case, character by character, whatever stands around it. */
    fun lowerCase(text: CodePoints): CodePoints {
        val result = CodePoints(text.size)
        text.forEach { code, origin -> result.addAll(lowered, code, origin) }
        return result
    }

    /** Canonical decomposition, or compatibility's (normalization forms D and KD of Unicode Standard Annex 15). */
    fun decompose(text: CodePoints, compatible: Boolean = false): CodePoints =
        text.changed(decomposition(text, compatible))

    /** The same, and then what composes is composed (normalization forms C and KC). */
    fun compose(text: CodePoints, compatible: Boolean = false): CodePoints {
        val parts = decomposition(text, compatible)
        val result = CodePoints(parts.size)
        var starter = -1
        var last = 0 // The class of what stands last behind the starter.
        parts.forEach { code, change ->
            val rank = combining[code] ?: 0
            val made = if (starter < 0 || (last >= rank && last > 0)) null else composed(result[starter], code)
            if (made != null) {
                result[starter] = made
                result.setOrigin(starter, result.origin(starter) + change - 1)
            } else {
                if (rank == 0) starter = result.size
                last = rank
                result.add(code, change)
            }
        }
        return text.changed(result)
    }

    /** Whether a grapheme goes on from one character to the next, where it has at most five bytes of UTF-8. */
    fun joins(code: Int, next: Int): Boolean = when {
        code == '\r'.code && next == '\n'.code -> true
        code in controls || next in controls -> false
        else -> next in extending || code in prepended
    }

    private fun decomposition(text: CodePoints, compatible: Boolean): CodePoints {
        val sorted = CodePoints(text.size)
        // The first code point of each is told from what came in behind it: the library counts by these.
        text.forEach { code, _ ->
            val before = sorted.size
            val targets = if (compatible) this.compatible[code] ?: decomposed[code] else decomposed[code]
            when {
                code in HANGUL -> addHangul(code, sorted)
                targets == null -> sorted.add(code, FIRST)
                else -> targets.forEach { sorted.add(it, FIRST) }
            }
            for (index in before + 1 until sorted.size) sorted.setOrigin(index, INSERTED)
        }
        sortMarks(sorted)
        return sorted
    }

    /** The character that two compose to; null: none. */
    private fun composed(first: Int, second: Int): Int? {
        val (leading, vowel, trail) = Triple(first - 0x1100, second - 0x1161, second - 0x11A7)
        val syllable = first - HANGUL.first
        return when {
            leading in 0 until LEADS && vowel in 0 until VOWELS -> HANGUL.first + (leading * VOWELS + vowel) * TRAILS
            first in HANGUL && syllable % TRAILS == 0 && trail in 1 until TRAILS -> first + trail
            else -> compositions[first.toLong() shl 32 or second.toLong()]
        }
    }

    /** Pairs that compose: of each decomposition the part before its last character, composed, and that one. */
    private fun compositions(): Map<Long, Int> {
        val excluded = CodePointSet(UnicodeTables.EXCLUDED)
        val whole = HashMap<List<Int>, Int>()
        for ((code, parts) in decomposed) if (parts.size > 1 && code !in excluded) whole[parts.asList()] = code
        val found = HashMap<Long, Int>()
        for ((parts, code) in whole) {
            val before = parts.dropLast(1)
            val first = if (before.size == 1) before[0] else whole[before] ?: continue
            found[first.toLong() shl 32 or parts.last().toLong()] = code
        }
        return found
    }

    private fun CodePoints.addAll(mapping: Map<Int, IntArray>, code: Int, origin: Int) {
        val targets = mapping[code]
        if (targets == null) add(code, origin) else targets.forEach { add(it, origin) }
    }

    /** The Unicode Standard, section 3.12: a syllable is a leading, a vowel and perhaps a trailing part. */
    private fun addHangul(code: Int, result: CodePoints) {
        val index = code - HANGUL.first
        result.add(0x1100 + index / (VOWELS * TRAILS), FIRST)
        result.add(0x1161 + index % (VOWELS * TRAILS) / TRAILS, FIRST)
        if (index % TRAILS != 0) result.add(0x11A7 + index % TRAILS, FIRST)
    }

    /** Runs of combining marks in the order of their classes; equal classes keep their order. */
    private fun sortMarks(text: CodePoints) {
        var start = 0
        while (start < text.size) {
            var end = start
            while (end < text.size && text[end] in combining) end++
            if (end - start > 1) {
                val order = (start until end).sortedBy { combining.getValue(text[it]) }
                val marks = order.map { text[it] to text.origin(it) }
                marks.forEachIndexed { index, (code, origin) ->
                    text[start + index] = code
                    text.setOrigin(start + index, origin)
                }
            }
            start = end + 1
        }
    }

    private fun mapping(table: String): Map<Int, IntArray> {
        val found = HashMap<Int, IntArray>()
        var code = 0
        for (entry in words(table)) {
            val (gap, targets) = entry.split(':')
            code += gap.toInt(36)
            found[code] = targets.split('+').map { it.toInt(36) }.toIntArray()
        }
        return found
    }

    private const val FIRST = 0
    private const val INSERTED = 1
    private val HANGUL = 0xAC00..0xD7A3
    private const val LEADS = 19
    private const val VOWELS = 21
    private const val TRAILS = 28
}

/**
 * A set of code points from pairs of base 36: the gap behind the last range, and the length of this one; with `kinds`,
 * from triples, of which the third is one of these.
 */
internal class CodePointSet(table: String, kinds: Set<Int>? = null) {
    private val starts: IntArray
    private val ends: IntArray

    init {
        val found = ArrayList<IntRange>()
        ranges(table, kinds != null) { start, end, kind -> if (kinds == null || kind in kinds) found.add(start until end) }
        starts = IntArray(found.size) { found[it].first }
        ends = IntArray(found.size) { found[it].last + 1 }
    }

    operator fun contains(code: Int): Boolean {
        val found = starts.binarySearch(code)
        return found >= 0 || (found < -1 && code < ends[-found - 2])
    }
}

/** A text as code points, which grows. Each knows its origin: the place in the text that was given of what it was. */
internal class CodePoints(capacity: Int = 16) {
    private var codes = IntArray(maxOf(capacity, 4))
    private var origins = IntArray(maxOf(capacity, 4))

    var size = 0
        private set

    operator fun get(index: Int): Int = codes[index]

    operator fun set(index: Int, code: Int) {
        codes[index] = code
    }

    fun setOrigin(index: Int, origin: Int) {
        origins[index] = origin
    }

    fun origin(index: Int): Int = origins[index]

    fun add(code: Int, origin: Int) {
        if (size == codes.size) {
            codes = codes.copyOf(2 * size)
            origins = origins.copyOf(2 * size)
        }
        codes[size] = code
        origins[size++] = origin
    }

    inline fun forEach(take: (code: Int, origin: Int) -> Unit) {
        for (index in 0 until size) take(get(index), origin(index))
    }

    /**
     * What this text becomes by changes: characters whose origins say 0 where they replace one, -n where they replace
     * one and n behind it, 1 where they stand beside the last one.
     */
    fun changed(changes: CodePoints): CodePoints {
        val result = CodePoints(changes.size)
        var next = 0
        changes.forEach { code, change ->
            val place = if (change > 0) next - 1 else next
            if (change <= 0) next += 1 - change
            result.add(code, origin(place.coerceIn(0, size - 1)))
        }
        return result
    }

    fun addAll(other: CodePoints, start: Int, end: Int) {
        for (index in start until end) add(other.codes[index], other.origins[index])
    }

    /** The part from `start` to before `end`. */
    fun part(start: Int, end: Int): CodePoints {
        val result = CodePoints(end - start)
        result.addAll(this, start, end)
        return result
    }

    fun string(start: Int = 0, end: Int = size) = String(codes, start, end - start)

    companion object {
        fun of(text: String): CodePoints {
            val result = CodePoints(text.length)
            var index = 0
            while (index < text.length) {
                val code = text.codePointAt(index)
                result.add(code, result.size)
                index += Character.charCount(code)
            }
            return result
        }
    }
}

private fun words(table: String): List<String> = table.split(' ', '\n').filter { it.isNotEmpty() }

private fun ranges(table: String, kinds: Boolean = true, take: (start: Int, end: Int, kind: Int) -> Unit) {
    var next = 0
    for (entry in numbers(table).chunked(if (kinds) 3 else 2)) {
        take(next + entry[0], next + entry[0] + entry[1], entry.last())
        next += entry[0] + entry[1]
    }
}

private fun numbers(table: String): List<Int> = words(table).map { it.toInt(36) }
