package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields
import org.edgeformer.core.shorten

private const val MAX_TEMPLATE_PIECES = 32

/** A text or its second: the rows of a model's embedding of types. */
private val TYPES = 0..1L

/** Where something stands in the text that was given: from `start` to before `end`. */
internal data class Place(val start: Int, val end: Int)

/** A part of what surrounds texts: number `text` of them, or a special token's id; with its token type. */
internal class Part(val text: Int?, val id: Int, val type: Int)

/**
 * What surrounds one text, and two.
 *
 * @property trim leaves white space out of tokens' places; null: they stay as they are.
 */
internal class Frame(val single: List<Part>, val pair: List<Part>, val trim: Trim? = null) {
    companion object {
        val none = listOf(Part(0, 0, 0)).let { Frame(it, it + Part(1, 0, 1)) }
    }
}

/**
 * White space at both ends of a token is not of its place.
 *
 * @property keepsPrefix the one space that the pre-tokenizer put before the text does not count.
 */
internal class Trim(private val keepsPrefix: Boolean) {
    fun trimmed(place: Place, token: String, isFirst: Boolean): Place {
        val codes = CodePoints.of(token)
        fun isSpace(index: Int) = codes[index] == SPACE || codes[index] in Unicode.whiteSpace
        var leading = (0 until codes.size).takeWhile(::isSpace).size
        val trailing = (codes.size - 1 downTo 0).takeWhile(::isSpace).size
        var (start, end) = place
        if (keepsPrefix && (isFirst || start == 0) && leading == 1) leading = 0
        start = minOf(start + leading, end)
        if (end >= trailing) end = maxOf(end - trailing, start)
        return Place(start, end)
    }

    private companion object {
        val SPACE = ByteLevel.characters[' '.code]
    }
}

/** A step of a post-processor: it surrounds texts, or trims places, or both. */
private class FrameStep(val frame: Frame?, val trim: Trim?)

internal fun readFrame(fields: Fields): Frame {
    val steps = StepReader("processors", once = setOf("ByteLevel", "TemplateProcessing")).read(fields, ::readStep)
    val (frames, trims) = steps.filter { it.frame != null } to steps.filter { it.trim != null }
    if (frames.size > 1 || trims.size > 1) fields.fail("processors", "expected one that surrounds texts")
    if (frames.isNotEmpty() && trims.isNotEmpty() && steps.indexOf(trims[0]) > steps.indexOf(frames[0])) {
        fields.fail("processors", "expected ByteLevel before what surrounds texts")
    }
    val around = frames.firstOrNull()?.frame ?: Frame.none
    return Frame(around.single, around.pair, trims.firstOrNull()?.trim)
}

private fun readStep(fields: Fields, type: String, reader: StepReader): FrameStep = when (type) {
    "TemplateProcessing" -> FrameStep(readTemplates(fields), null)
    "BertProcessing", "RobertaProcessing" -> {
        val (sep, cls) = listOf("sep", "cls").map { key ->
            val value = fields.skip(key) as? List<*>
            val id = value?.getOrNull(1) as? Long ?: fields.fail(key, "expected a token and its id")
            id.toInt()
        }
        val first = listOf(Part(null, cls, 0), Part(0, 0, 0), Part(null, sep, 0))
        if (type == "BertProcessing") {
            FrameStep(Frame(first, first + listOf(Part(1, 0, 1), Part(null, sep, 1))), null)
        } else {
            val second = listOf(Part(null, sep, 0), Part(1, 0, 0), Part(null, sep, 0))
            FrameStep(Frame(first, first + second), readTrim(fields))
        }
    }
    "ByteLevel" -> {
        fields.optionalBoolean("use_regex", true)
        FrameStep(null, readTrim(fields))
    }
    else -> fields.fail("type", "the post-processor $type has no reader here")
}

private fun readTrim(fields: Fields): Trim? {
    val keepsPrefix = fields.optionalBoolean("add_prefix_space", true)
    return if (fields.optionalBoolean("trim_offsets", true)) Trim(keepsPrefix) else null
}

private fun readTemplates(fields: Fields): Frame {
    val ids = fields.table("special_tokens", 0..1000, 0..1000) { all, token ->
        all.obj(token) {
            it.skip("id")
            it.skip("tokens")
            it.ints("ids", 1..1, TOKEN_IDS).single()
        }
    }
    return Frame(readTemplate(fields, "single", ids, listOf(0)), readTemplate(fields, "pair", ids, listOf(0, 1)))
}

/** A template, in which each of `texts` stands once and in order. */
private fun readTemplate(fields: Fields, key: String, ids: Map<String, Int>, texts: List<Int>): List<Part> {
    val parts = fields.objects(key, 1..MAX_TEMPLATE_PIECES) { readPart(it, ids) }
    if (parts.mapNotNull { it.text } != texts) fields.fail(key, "expected each text once")
    return parts
}

private fun readPart(fields: Fields, ids: Map<String, Int>): Part =
    if (fields.has("SpecialToken")) {
        fields.obj("SpecialToken") { token ->
            val name = token.string("id")
            val id = ids[name] ?: token.fail("id", "unknown special token ${shorten(name)}")
            Part(null, id, token.int("type_id", TYPES))
        }
    } else {
        fields.obj("Sequence") { text ->
            Part(if (text.choice("id", listOf("A", "B")) == "A") 0 else 1, 0, text.int("type_id", TYPES))
        }
    }
