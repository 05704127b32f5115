package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.shorten

private const val MAX_PATTERN_CHARACTERS = 512
private const val MAX_VARIANTS = 256

/** A part of a text, which a pattern matches or not. */
internal class Span(val start: Int, val end: Int, val matches: Boolean)

/** Characters, as a pattern names them. */
private class CharacterSet(private val negated: Boolean, private val members: List<(Int) -> Boolean>) {
    private val ascii = BooleanArray(128) { found(it) }

    operator fun contains(code: Int) = if (code < 128) ascii[code] else found(code)

    private fun found(code: Int) = members.any { it(code) } != negated
}

/** What a row is made of. */
private sealed class Item

/** Characters of a set, from `least` to `most`; `kept`: as many as there are. */
private class Some(val set: CharacterSet, val least: Int, val most: Int, val kept: Boolean = false) : Item()

/** No character of a set may stand here. */
private class NotAhead(val set: CharacterSet) : Item()

/** The first of some rows that lets the rest match, too; the last one may be empty. */
private class Choice(val rows: List<List<Item>>) : Item()

/**
 * A pattern of a tokenizer's file: alternatives, each a row of items, which a matcher that goes back passes once. It is
 * one of a public model, or has no groups and repeats without bound only what stands last (BUNDLE.md).
 *
 * @property shortest how many characters it matches at least.
 */
internal class Pattern private constructor(private val rows: List<List<Item>>) {
    val shortest: Int = shortest(rows)

    private fun shortest(rows: List<List<Item>>): Int = rows.minOf { row ->
        row.sumOf { item ->
            when (item) {
                is Some -> item.least
                is NotAhead -> 0
                is Choice -> shortest(item.rows)
            }
        }
    }

    /** The whole text in parts, from match to match. */
    fun spans(text: CodePoints): List<Span> {
        val spans = ArrayList<Span>()
        var done = 0
        var next = 0
        while (next < text.size) {
            val end = rows.firstNotNullOfOrNull { row -> end(row, 0, text, next).takeIf { it > next } }
            if (end == null) {
                next++
                continue
            }
            if (done < next) spans.add(Span(done, next, false))
            spans.add(Span(next, end, true))
            done = end
            next = end
        }
        if (done < text.size) spans.add(Span(done, text.size, false))
        return spans
    }

    /** Where the items from `index` on end; -1: they do not match at `start`. */
    private fun end(row: List<Item>, index: Int, text: CodePoints, start: Int): Int {
        if (index == row.size) return start
        when (val item = row[index]) {
            is NotAhead -> {
                val stands = start < text.size && text[start] in item.set
                return if (stands) -1 else end(row, index + 1, text, start)
            }
            is Choice -> {
                for (choice in item.rows) {
                    val place = end(choice, 0, text, start)
                    val end = if (place < 0) -1 else end(row, index + 1, text, place)
                    if (end >= 0) return end
                }
                return -1
            }
            is Some -> {
                var count = 0
                while (count < item.most && start + count < text.size && text[start + count] in item.set) count++
                while (count >= item.least) {
                    val end = end(row, index + 1, text, start + count)
                    if (end >= 0 || item.kept) return end
                    count--
                }
                return -1
            }
        }
    }

    companion object {
        private const val GPT2_WORDS = """ ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
        private const val GPT4_REST = """ ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
        private const val SUFFIXES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
        private const val UPPER = """[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"""
        private const val LOWER = """[\p{Ll}\p{Lm}\p{Lo}\p{M}]"""
        private const val GPT2 = "'s|'t|'re|'ve|'m|'ll|'d|$GPT2_WORDS"

        /** Of public models, which need groups and are linear. */
        private val KNOWN = listOf(
            GPT2,
            "'(?:[sdmt]|ll|ve|re)|$GPT2_WORDS",
            """$SUFFIXES|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|$GPT4_REST""",
            """$SUFFIXES|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|$GPT4_REST""",
            """'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*""" +
                """|\s*[\r\n]|\s+(?!\S)|\s+""",
            """[^\r\n\p{L}\p{N}]?$UPPER*$LOWER+$SUFFIXES?|[^\r\n\p{L}\p{N}]?$UPPER+$LOWER*$SUFFIXES?""" +
                """|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
        )

        val gpt2: Pattern by lazy { of(GPT2) }

        /** `{"String": …}` or `{"Regex": …}`. */
        fun read(fields: Fields): Pattern {
            val key = if (fields.has("Regex")) "Regex" else "String"
            val stated = fields.string(key, length = 1..MAX_TOKEN_CHARACTERS)
            val pattern = if (key == "Regex") of(stated) else literal(stated)
            if (pattern.shortest == 0) fields.fail(key, "${shorten(stated)} matches the empty text")
            return pattern
        }

        /** A text as it stands. */
        fun literal(text: String): Pattern {
            val row = ArrayList<Item>()
            CodePoints.of(text).forEach { code, _ -> row.add(Some(CharacterSet(false, listOf { it == code }), 1, 1)) }
            return Pattern(listOf(row))
        }

        private fun of(pattern: String) = Pattern(Parser(pattern, pattern in KNOWN).read())
    }

    private class Parser(private val pattern: String, private val known: Boolean) {
        private val codes = CodePoints.of(pattern)
        private var at = 0

        fun read(): List<List<Item>> {
            if (codes.size > MAX_PATTERN_CHARACTERS) fail()
            return alternatives(false).also { if (at < codes.size) fail() }
        }

        private fun alternatives(ignoreCase: Boolean): List<List<Item>> {
            val rows = arrayListOf(row(ignoreCase))
            while (next('|')) rows.add(row(ignoreCase))
            return rows
        }

        private fun row(ignoreCase: Boolean): List<Item> {
            val row = ArrayList<Item>()
            var variants = 1L
            while (at < codes.size && codes[at] != '|'.code && codes[at] != ')'.code) {
                val last = row.lastOrNull() as? Some
                if (!known && last?.most == Int.MAX_VALUE) fail()
                row.add(if (known && next('(')) group() else quantified(atom(ignoreCase)))
                val added = row.last()
                if (added is Some && added.most != Int.MAX_VALUE) variants *= added.most - added.least + 1
                if (!known && variants > MAX_VARIANTS) fail()
            }
            return row
        }

        private fun group(): Item {
            if (next("?!")) {
                val set = atom(false)
                if (!next(')')) fail()
                return NotAhead(set)
            }
            val ignoreCase = next("?i:")
            if (!ignoreCase && !next("?:")) fail()
            val inner = alternatives(ignoreCase)
            if (!next(')')) fail()
            return Choice(if (next('?')) inner + listOf(emptyList()) else inner)
        }

        private fun quantified(set: CharacterSet): Some {
            val (least, most) = when {
                next('?') -> 0 to 1
                next('*') -> 0 to Int.MAX_VALUE
                next('+') -> 1 to Int.MAX_VALUE
                next('{') -> bounds()
                else -> return Some(set, 1, 1)
            }
            return Some(set, least, most, kept = known && next('+'))
        }

        private fun bounds(): Pair<Int, Int> {
            val low = number() ?: fail()
            val high = if (next(',')) number() ?: Int.MAX_VALUE else low
            if (!next('}') || high < low) fail()
            return low to high
        }

        private fun number(): Int? {
            val start = at
            while (at < codes.size && at < start + 3 && codes[at] in '0'.code..'9'.code) at++
            return if (at == start) null else codes.string(start, at).toInt()
        }

        private fun atom(ignoreCase: Boolean): CharacterSet {
            if (next('[')) return bracket(ignoreCase)
            if (next('.')) return CharacterSet(true, listOf { it == '\n'.code })
            if (at < codes.size && codes[at] < 128 && codes[at].toChar() in "()]{}*+?^$") fail()
            return CharacterSet(false, listOf(member(ignoreCase)))
        }

        private fun bracket(ignoreCase: Boolean): CharacterSet {
            val negated = next('^')
            val members = ArrayList<(Int) -> Boolean>()
            while (!next(']')) {
                val first = codes.takeIf { at < it.size }?.get(at) ?: fail()
                if (first == '['.code || first == '&'.code) fail()
                val isRange = first != '\\'.code && at + 2 < codes.size && codes[at + 1] == '-'.code &&
                    codes[at + 2] != ']'.code && codes[at + 2] != '\\'.code
                if (isRange) {
                    val last = codes[at + 2]
                    if (last < first) fail()
                    at += 3
                    members.add { it in first..last }
                } else {
                    members.add(member(ignoreCase))
                }
            }
            if (members.isEmpty()) fail()
            return CharacterSet(negated, members)
        }

        private fun member(ignoreCase: Boolean): (Int) -> Boolean {
            if (at >= codes.size) fail()
            if (next('\\')) return escaped()
            val code = codes[at++]
            if (!ignoreCase || code !in 'a'.code..'z'.code) return { it == code }
            // A long s is an s in another case.
            return { it == code || it == code - 32 || (code == 's'.code && it == 0x17F) }
        }

        private fun escaped(): (Int) -> Boolean {
            val code = codes.takeIf { at < it.size }?.get(at++) ?: fail()
            return when (code.toChar()) {
                's' -> { it -> it in Unicode.whiteSpace }
                'S' -> { it -> it !in Unicode.whiteSpace }
                'r' -> { it -> it == '\r'.code }
                'n' -> { it -> it == '\n'.code }
                't' -> { it -> it == '\t'.code }
                'p', 'P' -> category(negated = code == 'P'.code)
                else -> if (code < 128 && Character.isLetterOrDigit(code)) fail() else { it -> it == code }
            }
        }

        private fun category(negated: Boolean): (Int) -> Boolean {
            if (!next('{')) fail()
            val other = next('^')
            val start = at
            while (at < codes.size && codes[at] != '}'.code) at++
            val set = Unicode.categories[codes.string(start, at)] ?: fail()
            if (!next('}')) fail()
            return if (negated != other) { it -> it !in set } else { it -> it in set }
        }

        private fun next(character: Char): Boolean =
            (at < codes.size && codes[at] == character.code).also { if (it) at++ }

        private fun next(text: String): Boolean {
            val found = text.indices.all { at + it < codes.size && codes[at + it] == text[it].code }
            if (found) at += text.length
            return found
        }

        private fun fail(): Nothing = throw BundleError(
            "the pattern ${shorten(pattern)} has no reader here: expected characters and classes without groups, the " +
                "last one alone repeated without bound, or the pattern of a public model",
        )
    }
}
