package org.edgeformer.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/** JSON without surprises: no duplicate keys, no NaN, no half surrogates, bounded size and depth. */
object StrictJson {
    const val MAX_DEPTH = 32

    /**
     * Parses UTF-8 JSON from an untrusted file.
     *
     * @param where the file's name, for messages.
     * @return Map (in the file's order), List, String, Long, Double, Boolean or null. A number is a Long where it is
     *   written without fraction and exponent and is one.
     * @throws BundleError not JSON, or JSON that other parsers would read differently.
     */
    fun parse(data: ByteArray, where: String, maxBytes: Int): Any? {
        if (data.size > maxBytes) throw BundleError("$where: expected at most $maxBytes bytes, found ${data.size}")
        return Parser(decode(data, where), where).parse()
    }

    /** Strict UTF-8, as text. */
    internal fun decode(data: ByteArray, where: String): String {
        val decoder = Charsets.UTF_8.newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
        return try {
            decoder.decode(ByteBuffer.wrap(data)).toString()
        } catch (error: CharacterCodingException) {
            throw BundleError("$where: expected UTF-8 text", error)
        }
    }
}

/** A value as it may be shown in a one-line message: ASCII, quoted where it is text, short. */
internal fun shorten(value: Any?, limit: Int = 80): String {
    val text = StringBuilder()
    val written = if (value is String) "'$value'" else value.toString()
    for (character in written) {
        if (character in ' '..'~') text.append(character) else text.append("\\u%04x".format(character.code))
        if (text.length > limit) return text.substring(0, limit - 3) + "..."
    }
    return text.toString()
}

private class Parser(private val text: String, private val where: String) {
    private var next = 0

    fun parse(): Any? {
        val value = value(0)
        skipSpace()
        if (next < text.length) fail("expected the end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > StrictJson.MAX_DEPTH) throw BundleError("$where: nested deeper than ${StrictJson.MAX_DEPTH} levels")
        skipSpace()
        return when (peek()) {
            '{' -> readObject(depth)
            '[' -> readArray(depth)
            '"' -> readString()
            't' -> literal("true", true)
            'f' -> literal("false", false)
            'n' -> literal("null", null)
            else -> readNumber()
        }
    }

    private fun readObject(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        next++
        skipSpace()
        if (take('}')) return found
        while (true) {
            skipSpace()
            if (peek() != '"') fail("expected a key")
            val key = readString()
            if (key in found) throw BundleError("$where: the key ${shorten(key)} occurs twice in one object")
            skipSpace()
            if (!take(':')) fail("expected ':'")
            found[key] = value(depth + 1)
            skipSpace()
            if (take('}')) return found
            if (!take(',')) fail("expected ',' or '}'")
        }
    }

    private fun readArray(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        next++
        skipSpace()
        if (take(']')) return found
        while (true) {
            found.add(value(depth + 1))
            skipSpace()
            if (take(']')) return found
            if (!take(',')) fail("expected ',' or ']'")
        }
    }

    private fun readString(): String {
        val start = ++next
        var escapes: StringBuilder? = null
        while (true) {
            val character = peek()
            when {
                character == '"' -> {
                    val found = escapes?.toString() ?: text.substring(start, next)
                    next++
                    return whole(found)
                }
                next >= text.length -> fail("expected the end of a text")
                character < ' ' -> fail("a control character in a text")
                character == '\\' -> {
                    if (escapes == null) escapes = StringBuilder(text.substring(start, next))
                    next++
                    escapes.append(escaped())
                }
                else -> {
                    escapes?.append(character)
                    next++
                }
            }
        }
    }

    private fun escaped(): Char {
        val character = peek()
        next++
        return when (character) {
            '"', '\\', '/' -> character
            'b' -> '\b'
            'f' -> '\u000c'
            'n' -> '\n'
            'r' -> '\r'
            't' -> '\t'
            'u' -> {
                val digits = text.substring(next, minOf(next + 4, text.length))
                if (digits.length < 4 || !digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) {
                    fail("expected four hexadecimal digits")
                }
                next += 4
                digits.toInt(16).toChar()
            }
            else -> fail("an unknown escape")
        }
    }

    /** Text without half of a surrogate pair, which has no UTF-8. */
    private fun whole(found: String): String {
        var index = 0
        while (index < found.length) {
            val isPair = found[index].isHighSurrogate() && index + 1 < found.length && found[index + 1].isLowSurrogate()
            if (!isPair && found[index].isSurrogate()) {
                throw BundleError("$where: ${shorten(found)} holds half of a surrogate pair: expected valid Unicode")
            }
            index += if (isPair) 2 else 1
        }
        return found
    }

    private fun readNumber(): Any {
        val start = next
        take('-')
        if (!take('0') && digits() == 0) fail("expected a value")
        var isInteger = true
        if (take('.')) {
            isInteger = false
            if (digits() == 0) fail("expected a digit")
        }
        if (peek() == 'e' || peek() == 'E') {
            isInteger = false
            next++
            if (!take('+')) take('-')
            if (digits() == 0) fail("expected a digit")
        }
        val written = text.substring(start, next)
        val integer = if (isInteger) written.toLongOrNull() else null
        if (integer != null) return integer
        val number = written.toDouble()
        if (number.isInfinite()) throw BundleError("$where: the number ${shorten(written)} is out of range")
        return number
    }

    private fun digits(): Int {
        val start = next
        while (peek() in '0'..'9') next++
        return next - start
    }

    private fun literal(word: String, value: Any?): Any? {
        if (!text.startsWith(word, next)) fail("expected a value")
        next += word.length
        return value
    }

    private fun skipSpace() {
        while (next < text.length && text[next] in " \t\n\r") next++
    }

    private fun take(character: Char): Boolean {
        if (peek() != character) return false
        next++
        return true
    }

    /** The next character; behind the end NUL, which no JSON holds. */
    private fun peek(): Char = if (next < text.length) text[next] else '\u0000'

    private fun fail(what: String): Nothing {
        val before = text.substring(0, minOf(next, text.length))
        val line = before.count { it == '\n' } + 1
        throw BundleError("$where: not JSON: $what at line $line, column ${before.length - before.lastIndexOf('\n')}")
    }
}
