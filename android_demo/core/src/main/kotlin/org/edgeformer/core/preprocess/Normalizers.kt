package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.io.encoding.Base64

/** What changes a text before it is split. */
internal fun interface Normalizer {
    fun normalize(text: CodePoints): CodePoints
}

/** The steps of a normalizer, in their order. */
internal fun readNormalizer(fields: Fields): Normalizer {
    val steps = StepReader("normalizers", once = setOf("Precompiled", "Prepend")).read(fields, ::readStep)
    return Normalizer { text -> steps.fold(text) { changed, step -> step.normalize(changed) } }
}

private fun readStep(fields: Fields, type: String, reader: StepReader): Normalizer = when (type) {
    "BertNormalizer" -> BertNormalizer.read(fields)
    "NFC" -> Normalizer { Unicode.compose(it) }
    "NFD" -> Normalizer { Unicode.decompose(it) }
    "NFKC" -> Normalizer { Unicode.compose(it, compatible = true) }
    "NFKD" -> Normalizer { Unicode.decompose(it, compatible = true) }
    "Lowercase" -> Normalizer(Unicode::lowerCase)
    "StripAccents" -> Normalizer { text -> text.kept { it !in Unicode.marks } }
    "Strip" -> strip(fields.boolean("strip_left"), fields.boolean("strip_right"))
    "Prepend" -> {
        val prefix = CodePoints.of(fields.string("prepend", length = 1..MAX_AFFIX_CHARACTERS))
        Normalizer { it.prefixed(prefix) }
    }
    "Replace" -> {
        val pattern = fields.obj("pattern", Pattern::read)
        val content = CodePoints.of(fields.string("content"))
        reader.grow(content.size.toDouble() / pattern.shortest)
        Normalizer { it.replaced(pattern, content) }
    }
    "Precompiled" -> Precompiled.read(fields)
    else -> fields.fail("type", "the normalizer $type has no reader here")
}

private fun CodePoints.kept(keep: (Int) -> Boolean): CodePoints {
    val result = CodePoints(size)
    forEach { code, origin -> if (keep(code)) result.add(code, origin) }
    return result
}

private fun strip(left: Boolean, right: Boolean) = Normalizer { text ->
    var start = 0
    var end = text.size
    if (left) while (start < end && text[start] in Unicode.whiteSpace) start++
    if (right) while (end > start && text[end - 1] in Unicode.whiteSpace) end--
    text.part(start, end)
}

/** The same behind `prefix`, which comes from where the first character does; nothing where there is nothing. */
internal fun CodePoints.prefixed(prefix: CodePoints): CodePoints {
    if (size == 0) return this
    val result = CodePoints(size + prefix.size)
    prefix.forEach { code, _ -> result.add(code, origin(0)) }
    result.addAll(this, 0, size)
    return result
}

/** With `content` for each match, which comes from where the last character of the match does. */
internal fun CodePoints.replaced(pattern: Pattern, content: CodePoints): CodePoints {
    val result = CodePoints(size)
    for (span in pattern.spans(this)) {
        if (span.matches) {
            content.forEach { code, _ -> result.add(code, origin(span.end - 1)) }
        } else {
            result.addAll(this, span.start, span.end)
        }
    }
    return result
}

/**
 * A map of characters of SentencePiece: a trie of UTF-8 (a double array, Aoe 1989) whose leaves are places in a blob
 * of replacements, each closed by a NUL. A grapheme of up to five bytes is looked up whole, by its shortest prefix that
 * is there, and then stands for all of it; others are looked up character by character.
 */
internal class Precompiled private constructor(private val units: IntArray, private val blob: ByteArray) : Normalizer {
    private val replacements = HashMap<Int, CodePoints>()

    init {
        var start = 0
        for (index in blob.indices) {
            if (blob[index] != 0.toByte()) continue
            replacements[start] = CodePoints.of(String(blob, start, index - start, Charsets.UTF_8))
            start = index + 1
        }
    }

    override fun normalize(text: CodePoints): CodePoints {
        val changes = CodePoints(text.size)
        var start = 0
        while (start < text.size) {
            var end = start + 1
            while (end < text.size && Unicode.joins(text[end - 1], text[end])) end++
            val bytes = (start until end).sumOf { utf8Length(text[it]) }
            val whole = if (bytes <= MAX_GRAPHEME_BYTES) found(text, start, end) else null
            if (whole != null) {
                changes.replace(whole, end - start)
            } else {
                for (index in start until end) {
                    val single = found(text, index, index + 1)
                    if (single == null) changes.add(text[index], 0) else changes.replace(single, 1)
                }
            }
            start = end
        }
        return text.changed(changes)
    }

    /** Adds what stands for `count` characters: the last ones are more than there were, or the last one is for more. */
    private fun CodePoints.replace(with: CodePoints, count: Int) {
        with.forEach { code, _ -> add(code, 0) }
        val more = with.size - count
        for (index in size - maxOf(more, 0) until size) setOrigin(index, 1)
        if (more < 0 && size > 0) setOrigin(size - 1, origin(size - 1) + more)
    }

    private fun found(text: CodePoints, start: Int, end: Int): CodePoints? {
        var node = offset(units[0])
        for (byte in text.string(start, end).toByteArray()) {
            val key = byte.toInt() and 0xFF
            node = node xor key
            val unit = units.getOrElse(node) { return null }
            if (key == 0 || unit and LABEL != key) return null
            node = node xor offset(unit)
            if (unit ushr 8 and 1 == 1) return replacement(units.getOrElse(node) { return null } and Int.MAX_VALUE)
        }
        return null
    }

    /** Maps share the ends of entries, so one may start inside of another. */
    private fun replacement(start: Int): CodePoints? = replacements[start] ?: run {
        if (start >= blob.size) return null
        var end = start
        while (end < blob.size && blob[end] != 0.toByte()) end++
        CodePoints.of(String(blob, start, end - start, Charsets.UTF_8))
    }

    companion object {
        private const val MAX_GRAPHEME_BYTES = 5
        private const val MAX_ENTRY_BYTES = 128
        private const val LABEL = (1 shl 31) or 0xFF

        private fun offset(unit: Int) = (unit ushr 10) shl ((unit and (1 shl 9)) ushr 6)

        fun read(fields: Fields): Precompiled {
            val key = "precompiled_charsmap"
            val data = try {
                Base64.decode(fields.string(key))
            } catch (_: IllegalArgumentException) {
                fields.fail(key, "not base64")
            }
            val buffer = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
            val size = if (data.size < 8) -1 else buffer.int
            if (size < 4 || size % 4 != 0 || size > data.size - 4) fields.fail(key, "expected a map of SentencePiece")
            val units = IntArray(size / 4) { buffer.int }
            val blob = data.copyOfRange(4 + size, data.size)
            var length = 0
            for (byte in blob) {
                length = if (byte == 0.toByte()) 0 else length + 1
                if (length > MAX_ENTRY_BYTES) fields.fail(key, "expected entries of at most $MAX_ENTRY_BYTES bytes")
            }
            return Precompiled(units, blob)
        }
    }
}

internal fun utf8Length(code: Int) = if (code < 0x80) 1 else if (code < 0x800) 2 else if (code < 0x10000) 3 else 4
