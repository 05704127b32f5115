package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields

/** What splits a text into words. */
internal fun interface PreTokenizer {
    fun split(text: CodePoints): List<CodePoints>
}

/** The steps of a pre-tokenizer, in their order. */
internal fun readPreTokenizer(fields: Fields): PreTokenizer {
    val steps = StepReader("pretokenizers", once = setOf("ByteLevel", "Metaspace")).read(fields, ::readStep)
    return PreTokenizer { text ->
        steps.fold(listOf(text)) { words, step -> words.flatMap(step::split).filter { it.size > 0 } }
    }
}

private fun readStep(fields: Fields, type: String, reader: StepReader): PreTokenizer = when (type) {
    "BertPreTokenizer" -> PreTokenizer { text ->
        Behavior.REMOVED.split(text, spans(text) { it in Unicode.whiteSpace }).flatMap { word ->
            Behavior.ISOLATED.split(word, spans(word) { it in Unicode.punctuation })
        }
    }
    "Whitespace" -> PreTokenizer(::words)
    "WhitespaceSplit" -> PreTokenizer { text ->
        Behavior.REMOVED.split(text, spans(text) { it in Unicode.whiteSpace })
    }
    "Punctuation" -> {
        val behavior = fields.optional("behavior") { Behavior.read(fields) } ?: Behavior.ISOLATED
        PreTokenizer { text -> behavior.split(text, spans(text) { it in Unicode.punctuation }) }
    }
    "Digits" -> {
        val behavior = if (fields.boolean("individual_digits")) Behavior.ISOLATED else Behavior.CONTIGUOUS
        PreTokenizer { text -> behavior.split(text, spans(text) { it in Unicode.numeric }) }
    }
    "Split" -> {
        val pattern = fields.obj("pattern", Pattern::read)
        val (behavior, invert) = Behavior.read(fields) to fields.boolean("invert")
        PreTokenizer { text ->
            val spans = pattern.spans(text)
            behavior.split(text, if (invert) spans.map { Span(it.start, it.end, !it.matches) } else spans)
        }
    }
    "ByteLevel" -> ByteLevel.read(fields)
    "Metaspace" -> readMetaspace(fields)
    else -> fields.fail("type", "the pre-tokenizer $type has no reader here")
}

/** Each character of the set for itself, and what is between them. */
private fun spans(text: CodePoints, matches: (Int) -> Boolean): List<Span> {
    val spans = ArrayList<Span>()
    var done = 0
    for (index in 0 until text.size) {
        if (!matches(text[index])) continue
        if (done < index) spans.add(Span(done, index, false))
        spans.add(Span(index, index + 1, true))
        done = index + 1
    }
    if (done < text.size) spans.add(Span(done, text.size, false))
    return spans
}

/** Runs of characters of words, and of others that are no white space. */
private fun words(text: CodePoints): List<CodePoints> {
    fun kind(index: Int) = if (text[index] in Unicode.word) 2 else if (text[index] in Unicode.whiteSpace) 0 else 1
    val found = ArrayList<CodePoints>()
    var start = 0
    while (start < text.size) {
        var end = start + 1
        while (end < text.size && kind(end) == kind(start)) end++
        if (kind(start) > 0) found.add(text.part(start, end))
        start = end
    }
    return found
}

/** What becomes of that where a text is split. */
private enum class Behavior(val stated: String) {
    REMOVED("Removed"),
    ISOLATED("Isolated"),
    PREVIOUS("MergedWithPrevious"),
    NEXT("MergedWithNext"),
    CONTIGUOUS("Contiguous"),
    ;

    fun split(text: CodePoints, spans: List<Span>): List<CodePoints> {
        val words = ArrayList<CodePoints>()
        var start = 0
        for ((index, span) in spans.withIndex()) {
            val joins = when (this) {
                REMOVED, ISOLATED -> false
                // A second one in a row stands alone.
                PREVIOUS -> index + 1 < spans.size && spans[index + 1].matches && !span.matches
                NEXT -> span.matches && index + 1 < spans.size && !spans[index + 1].matches
                CONTIGUOUS -> index + 1 < spans.size && spans[index + 1].matches == span.matches
            }
            if (joins) continue
            if (this != REMOVED || !span.matches) words.add(text.part(start, span.end))
            start = span.end
        }
        return words
    }

    companion object {
        fun read(fields: Fields): Behavior {
            val stated = fields.choice("behavior", entries.map { it.stated })
            return entries.first { it.stated == stated }
        }
    }
}

/** The bytes of UTF-8 as printable characters (GPT-2, Radford et al. 2019). */
internal object ByteLevel {
    /** The character of each byte: itself where Latin-1 has a visible one, else the next from U+0100 on. */
    val characters: IntArray = run {
        val visible = setOf<Int>() + (0x21..0x7E) + (0xA1..0xAC) + (0xAE..0xFF)
        var next = 0x100
        IntArray(256) { if (it in visible) it else next++ }
    }
    private val space = CodePoints.of(" ")

    fun read(fields: Fields): PreTokenizer {
        val prefix = fields.optionalBoolean("add_prefix_space", true)
        fields.optionalBoolean("trim_offsets", true)
        val pattern = if (fields.optionalBoolean("use_regex", true)) Pattern.gpt2 else null
        return PreTokenizer { text ->
            val prefixed = if (prefix && text.size > 0 && text[0] != ' '.code) text.prefixed(space) else text
            val words = pattern?.let { Behavior.ISOLATED.split(prefixed, it.spans(prefixed)) } ?: listOf(prefixed)
            words.map(::bytes)
        }
    }

    private fun bytes(text: CodePoints): CodePoints {
        val result = CodePoints(2 * text.size)
        text.forEach { code, origin -> utf8(code) { result.add(characters[it], origin) } }
        return result
    }
}

internal inline fun utf8(code: Int, take: (Int) -> Unit) {
    val length = utf8Length(code)
    if (length == 1) return take(code)
    take((0xF00 shr length and 0xFF) or (code shr 6 * (length - 1)))
    for (rest in length - 2 downTo 0) take(0x80 or (code shr 6 * rest and 0x3F))
}

private fun readMetaspace(fields: Fields): PreTokenizer {
    val mark = CodePoints.of(fields.string("replacement", length = 1..1))
    val adds = fields.optional("add_prefix_space") { fields.boolean("add_prefix_space") }
    fields.optional("str_rep") { fields.string("str_rep") }
    val stated = fields.optional("prepend_scheme") {
        fields.choice("prepend_scheme", listOf("always", "first", "never"))
    } ?: "always"
    if (adds == false && stated != "never" && fields.has("prepend_scheme")) {
        fields.fail("add_prefix_space", "expected what prepend_scheme says")
    }
    val scheme = if (adds == false) "never" else stated
    val splits = fields.optionalBoolean("split", true)
    val space = Pattern.literal(" ")
    return PreTokenizer { text ->
        var marked = text.replaced(space, mark)
        val isFirst = scheme == "always" || (scheme == "first" && marked.size > 0 && marked.origin(0) == 0)
        if (isFirst && marked.size > 0 && marked[0] != mark[0]) marked = marked.prefixed(mark)
        if (splits) Behavior.NEXT.split(marked, spans(marked) { it == mark[0] }) else listOf(marked)
    }
}
