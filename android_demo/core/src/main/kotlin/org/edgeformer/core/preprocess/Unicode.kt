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

    private val combining = combiningClasses()
    private val decomposed = mapping(UnicodeTables.DECOMPOSED)
    private val lowered = mapping(UnicodeTables.LOWERED)

    /** Lower case, character by character, whatever stands around it. */
    fun lowerCase(text: CodePoints): CodePoints {
        val result = CodePoints(text.size)
        text.forEach { code, origin -> result.addAll(lowered, code, origin) }
        return result
    }

    /** Canonical decomposition (normalization form D of Unicode Standard Annex 15). */
    fun decompose(text: CodePoints): CodePoints {
        val sorted = CodePoints(text.size)
        // The first code point of each is told from what came in behind it: the library counts by these.
        text.forEach { code, _ ->
            val before = sorted.size
            if (code in HANGUL) addHangul(code, sorted) else sorted.addAll(decomposed, code, FIRST)
            for (index in before + 1 until sorted.size) sorted.setOrigin(index, INSERTED)
        }
        sortMarks(sorted)
        val result = CodePoints(sorted.size)
        var place = -1
        sorted.forEach { code, kind ->
            if (kind == FIRST) place++
            result.add(code, text.origin(maxOf(place, 0)))
        }
        return result
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

    private fun combiningClasses(): Map<Int, Int> {
        val found = HashMap<Int, Int>()
        var next = 0
        for ((gap, length, rank) in numbers(UnicodeTables.COMBINING).chunked(3)) {
            repeat(length) { found[next + gap + it] = rank }
            next += gap + length
        }
        return found
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
    private const val VOWELS = 21
    private const val TRAILS = 28
}

/** A set of code points from pairs of base 36: the gap behind the last range, and the length of this one. */
internal class CodePointSet(table: String) {
    private val starts: IntArray
    private val ends: IntArray

    init {
        val pairs = numbers(table).chunked(2)
        starts = IntArray(pairs.size)
        ends = IntArray(pairs.size)
        var next = 0
        pairs.forEachIndexed { index, (gap, length) ->
            starts[index] = next + gap
            ends[index] = next + gap + length
            next = ends[index]
        }
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

    /** The part from `start` to before `end`. */
    fun part(start: Int, end: Int): CodePoints {
        val result = CodePoints(end - start)
        for (index in start until end) result.add(codes[index], origins[index])
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

private fun numbers(table: String): List<Int> = words(table).map { it.toInt(36) }
