package org.edgeformer.core.preprocess

import org.edgeformer.core.Fields

internal const val MAX_TOKEN_CHARACTERS = 1024

/** Of what is written before or behind pieces, or before a text. */
internal const val MAX_AFFIX_CHARACTERS = 64
internal val TOKEN_IDS = 0..Int.MAX_VALUE.toLong()
private const val MAX_STEPS = 32
private const val MAX_GROWTH = 8.0

/**
 * Reads a part of a tokenizer's file, a step or a sequence of them, within the bounds of BUNDLE.md.
 *
 * @param key of a sequence's steps.
 * @param once types of which a second one would make a text longer again.
 */
internal class StepReader(private val key: String, private val once: Set<String>) {
    private val seen = HashSet<String>()
    private var count = 0
    private var growth = 1.0

    fun <T> read(fields: Fields, step: (Fields, String, StepReader) -> T): List<T> {
        val type = fields.string("type")
        if (++count > MAX_STEPS) fields.fail("type", "more than $MAX_STEPS steps")
        if (type == "Sequence") return fields.objects(key, 0..MAX_STEPS) { read(it, step) }.flatten()
        if (!seen.add(type) && type in once) fields.fail("type", "$type occurs twice")
        val made = step(fields, type, this)
        if (growth > MAX_GROWTH) fields.fail("content", "replacements make a text over $MAX_GROWTH times longer")
        return listOf(made)
    }

    /** A step makes a text longer. */
    fun grow(times: Double) {
        growth *= maxOf(1.0, times)
    }
}

/** A key that may be missing, or null. */
internal fun <T> Fields.optional(key: String, read: () -> T): T? =
    if (peek(key) != null) read() else null.also { if (has(key)) skip(key) }

internal fun Fields.optionalBoolean(key: String, default: Boolean) = optional(key) { boolean(key) } ?: default
