package org.edgeformer.core.preprocess

/** Strings in order, found as prefixes of a text in time that grows with their length and the logarithm of their number. */
internal class PrefixTable(strings: Collection<String>) {
    private val sorted = strings.filter { it.isNotEmpty() }.distinct().sorted().toTypedArray()

    /** Where the strings of each first character start. */
    private val firsts = IntArray(0x10001).also { starts ->
        for (string in sorted) starts[string[0].code + 1]++
        for (index in 1 until starts.size) starts[index] += starts[index - 1]
    }

    val size: Int get() = sorted.size

    operator fun get(index: Int): String = sorted[index]

    /** Its place; negative where it is not there. */
    fun indexOf(string: String): Int = sorted.binarySearch(string)

    /** Takes each string with which the text goes on at `start`, the shortest first, and the place where it ends. */
    inline fun forEachPrefix(text: CodePoints, start: Int, take: (end: Int, index: Int) -> Unit) {
        var range = 0L
        var depth = 0
        for (place in start until text.size) {
            val code = text[place]
            if (code < 0x10000) {
                range = narrowed(range, depth++, code)
            } else {
                range = narrowed(range, depth++, Character.highSurrogate(code).code)
                range = narrowed(range, depth++, Character.lowSurrogate(code).code)
            }
            val first = (range ushr 32).toInt()
            if (first >= range.toInt()) break
            if (sorted[first].length == depth) take(place + 1, first)
        }
    }

    /** Of the strings from one place to before another, those that have `unit` at `depth`. */
    @PublishedApi
    internal fun narrowed(range: Long, depth: Int, unit: Int): Long {
        if (depth == 0) return firsts[unit].toLong() shl 32 or firsts[unit + 1].toLong()
        val start = bound((range ushr 32).toInt(), range.toInt(), depth, unit)
        return start.toLong() shl 32 or bound(start, range.toInt(), depth, unit + 1).toLong()
    }

    /** The first string whose unit at `depth` is not below `unit`. */
    private fun bound(start: Int, end: Int, depth: Int, unit: Int): Int {
        var (low, high) = start to end
        while (low < high) {
            val middle = (low + high) ushr 1
            val string = sorted[middle]
            if (string.length > depth && string[depth].code >= unit) high = middle else low = middle + 1
        }
        return low
    }
}
