package org.edgeformer.core.decoding

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.StrictJson
import org.edgeformer.core.shorten
import java.io.ByteArrayOutputStream

private const val MAX_TOKENIZER_BYTES = 64 shl 20
private const val REPLACEMENT = '\uFFFD'

/** Code points of the scripts that put no spaces between words. */
private val WITHOUT_SPACES = listOf(
    0x0E00..0x0EFF, // Thai, Lao
    0x1000..0x109F, // Myanmar
    0x2E80..0x312F, // ideographs' parts and punctuation, hiragana, katakana
    0x3190..0x9FFF, // ideographs, without Hangul
    0xF900..0xFAFF,
    0xFE30..0xFE4F,
    0xFF00..0xFF9F, // the same and Latin in full width
    0x20000..0x3FFFF,
)

/** Texts as one, with spaces between them where their scripts have spaces; a translation has its own script's. */
internal fun joinTexts(texts: List<String>): String {
    val joined = StringBuilder()
    for (text in texts.filter { it.isNotEmpty() }) {
        if (joined.isNotEmpty() && hasSpaces(joined.codePointBefore(joined.length), text.codePointAt(0))) joined.append(' ')
        joined.append(text)
    }
    return joined.toString()
}

/** Whether the scripts in which one text ends and another begins put spaces between words. */
internal fun hasSpaces(before: Int, after: Int) = WITHOUT_SPACES.none { before in it || after in it }

/**
 * A speech model's tokens as text: byte-level BPE (Radford et al. 2019). Text tokens are those below `end`; all others
 * are special. Calls from several threads are safe.
 *
 * @param data the bytes of a file of the tokenizers library.
 * @param name of the file, for messages.
 * @throws BundleError it is no such file.
 */
internal class SpeechTokenizer(data: ByteArray, private val name: String, private val end: Int) {
    private val written: Array<String?> = read(data)

    /**
     * The text of tokens; special ones have none. Bytes at the end that are only the start of a character are held
     * back; others that are no UTF-8 become U+FFFD.
     */
    fun text(tokens: List<Int>): String {
        val bytes = ByteArrayOutputStream()
        for (token in tokens) if (token < end) bytesOf(token).forEach(bytes::write)
        return wholeCharacters(bytes.toByteArray())
    }

    /** The bytes that a token stands for, as 0 to 255. */
    private fun bytesOf(token: Int): List<Int> {
        val characters = written.getOrNull(token)
            ?: throw BundleError("${shorten(name)}: expected a token $token, found none")
        return characters.map { character ->
            BYTE_OF[character] ?: throw BundleError(
                "${shorten(name)}: the token $token is ${shorten(characters)}, expected byte-level BPE",
            )
        }
    }

    private fun read(data: ByteArray): Array<String?> {
        return Fields.read(StrictJson.parse(data, name, MAX_TOKENIZER_BYTES), name) { fields ->
            (fields.keys - "model").forEach { fields.skip(it) }
            val ids = fields.obj("model") { model ->
                // The rest of the file is for the way from text to tokens.
                (model.keys - "type" - "vocab").forEach { model.skip(it) }
                model.choice("type", listOf("BPE"))
                model.table("vocab", 1..10_000_000, 0..Int.MAX_VALUE) { all, token -> all.int(token, 0..10_000_000L) }
            }
            arrayOfNulls<String>(end).also { found -> ids.forEach { (token, id) -> if (id < end) found[id] = token } }
        }
    }
}

/**
 * The byte that each character of byte-level BPE's alphabet stands for: printable characters of Latin-1 stand for
 * themselves, the other bytes, in order, are written as the characters from U+0100 on.
 */
private val BYTE_OF: Map<Char, Int> = HashMap<Char, Int>().apply {
    var next = 0x100
    for (byte in 0..255) {
        val isOwn = byte in 0x21..0x7E || byte in 0xA1..0xAC || byte in 0xAE..0xFF
        put(if (isOwn) byte.toChar() else (next++).toChar(), byte)
    }
}

/**
 * UTF-8 as text; each longest start of a character that does not go on becomes one U+FFFD (Unicode, section 3.9).
 */
private fun wholeCharacters(bytes: ByteArray): String {
    val text = StringBuilder()
    var next = 0
    while (next < bytes.size) {
        val first = bytes[next].toInt() and 0xFF
        val length = lengthOf(first)
        var found = 1
        var code = if (length == 1) first else first and (0x7F shr length)
        while (found < length && next + found < bytes.size) {
            val byte = bytes[next + found].toInt() and 0xFF
            if (!continues(first, found, byte)) break
            code = code shl 6 or (byte and 0x3F)
            found++
        }
        if (found < length && next + found == bytes.size) break // held back: the rest may come
        if (found == length) text.appendCodePoint(code) else text.append(REPLACEMENT)
        next += maxOf(found, 1)
    }
    return text.toString()
}

/** How many bytes a character has that starts with this one; 0: none starts so. */
private fun lengthOf(first: Int) = when (first) {
    in 0x00..0x7F -> 1
    in 0xC2..0xDF -> 2
    in 0xE0..0xEF -> 3
    in 0xF0..0xF4 -> 4
    else -> 0
}

/** Whether a byte may be number `index` of a character: no detours, no surrogates, nothing beyond U+10FFFF. */
private fun continues(first: Int, index: Int, byte: Int) = when {
    index > 1 -> byte in 0x80..0xBF
    first == 0xE0 -> byte in 0xA0..0xBF
    first == 0xED -> byte in 0x80..0x9F
    first == 0xF0 -> byte in 0x90..0xBF
    first == 0xF4 -> byte in 0x80..0x8F
    else -> byte in 0x80..0xBF
}
