package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields

/**
 * What BERT's tokenizers do to a text before they split it (`BertNormalizer` of the tokenizers library).
 *
 * @property cleanText removes control characters, and makes all white space spaces.
 * @property handleChineseChars puts spaces around ideographs.
 * @property stripAccents decomposes, and removes nonspacing marks.
 * @property lowercase makes lower case.
 */
internal class BertNormalizer(
    private val cleanText: Boolean,
    private val handleChineseChars: Boolean,
    private val stripAccents: Boolean,
    private val lowercase: Boolean,
) : Normalizer {
    override fun normalize(text: CodePoints): CodePoints {
        var result = text
        if (cleanText) result = clean(result)
        if (handleChineseChars) result = spaced(result)
        if (stripAccents) result = stripped(result)
        return if (lowercase) Unicode.lowerCase(result) else result
    }

    private fun clean(text: CodePoints): CodePoints {
        val result = CodePoints(text.size)
        text.forEach { code, origin ->
            when (code) {
                in Unicode.blank -> result.add(SPACE, origin)
                !in Unicode.removed -> result.add(code, origin)
            }
        }
        return result
    }

    private fun spaced(text: CodePoints): CodePoints {
        val result = CodePoints(text.size)
        text.forEach { code, origin ->
            val isIdeograph = code in Unicode.ideographs
            if (isIdeograph) result.add(SPACE, origin)
            result.add(code, origin)
            if (isIdeograph) result.add(SPACE, origin)
        }
        return result
    }

    private fun stripped(text: CodePoints): CodePoints {
        val result = CodePoints(text.size)
        Unicode.decompose(text).forEach { code, origin -> if (code !in Unicode.nonspacing) result.add(code, origin) }
        return result
    }

    companion object {
        private const val SPACE = ' '.code

        /** From a tokenizers file, where `strip_accents` may be null: then it follows `lowercase`. */
        fun read(fields: Fields): BertNormalizer {
            val lowercase = fields.boolean("lowercase")
            val strip = if (fields.peek("strip_accents") == null) {
                fields.optionalString("strip_accents")
                lowercase
            } else {
                fields.boolean("strip_accents")
            }
            val (clean, chinese) = listOf("clean_text", "handle_chinese_chars").map(fields::boolean)
            return BertNormalizer(clean, chinese, strip, lowercase)
        }
    }
}
