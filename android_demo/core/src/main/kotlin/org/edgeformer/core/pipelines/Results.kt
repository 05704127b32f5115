package org.edgeformer.core.pipelines

import org.edgeformer.core.InputError

/** What one answer cost, in milliseconds. */
data class Statistics(val preprocessMs: Double, val runMs: Double, val postprocessMs: Double)

/** An answer of a program pipeline. */
interface Measured {
    /** What it cost; null where it was not measured. */
    val statistics: Statistics?

    /** The input was too long and lost its end. */
    val truncated: Boolean get() = false
}

/**
 * Labels with their scores, best first.
 *
 * @property labels every label of the bundle, or the best of them after [top].
 * @property scores each label's probability, in the order of [labels].
 * @property truncated the input was too long and lost its end.
 * @property statistics what the answer cost; null where it was not measured.
 */
data class ClassificationResult(
    val labels: List<String>,
    val scores: List<Double>,
    override val truncated: Boolean = false,
    override val statistics: Statistics? = null,
) : Measured {
    /** The best label. */
    val label: String get() = labels[0]

    /** The best label's score. */
    val score: Double get() = scores[0]

    /** The same answer with its `k` best labels, or all where there are fewer. */
    fun top(k: Int): ClassificationResult {
        if (k < 1) throw InputError("top: expected at least 1 label, found $k")
        return copy(labels = labels.take(k), scores = scores.take(k))
    }
}

/**
 * An embedding.
 *
 * @property vector (D) float32.
 * @property truncated the input was too long and lost its end.
 * @property statistics what the answer cost; null where it was not measured.
 */
class EmbeddingResult(
    val vector: FloatArray,
    override val truncated: Boolean = false,
    override val statistics: Statistics? = null,
) : Measured

/**
 * One number.
 *
 * @property score of the text, or of the pair.
 * @property truncated the input was too long and lost its end.
 * @property statistics what the answer cost; null where it was not measured.
 */
data class ScoreResult(
    val score: Double,
    override val truncated: Boolean = false,
    override val statistics: Statistics? = null,
) : Measured

/** An answer: [text] stands from code point [start] to before [end] of the context. An empty one: there is none. */
data class AnswerSpan(val text: String, val start: Int, val end: Int, val score: Double)

/**
 * Answers to a question.
 *
 * @property answers best first; none where the context has no token that could be one.
 * @property statistics what the answer cost; null where it was not measured.
 */
data class SpanResult(val answers: List<AnswerSpan>, override val statistics: Statistics? = null) : Measured

/** [text] stands from code point [start] to before [end] of the text, and has the label. */
data class Entity(val text: String, val label: String, val start: Int, val end: Int, val score: Double)

/**
 * Entities of a text.
 *
 * @property entities in the order of the text.
 * @property statistics what the answer cost; null where it was not measured.
 */
data class EntityResult(val entities: List<Entity>, override val statistics: Statistics? = null) : Measured

/**
 * A token for a mask.
 *
 * @property token its id.
 * @property text what it writes by itself; ## and the like before a token that continues a word stay.
 * @property score its probability among all tokens.
 * @property mask the number of the mask in the text, from 0 on.
 */
data class Fill(val token: Int, val text: String, val score: Double, val mask: Int = 0)

/**
 * Tokens for the masks of a text.
 *
 * @property fills of each mask its best ones, best first; masks in the order of the text.
 * @property truncated the input was too long and lost its end.
 * @property statistics what the answer cost; null where it was not measured.
 */
data class FillResult(
    val fills: List<Fill>,
    override val truncated: Boolean = false,
    override val statistics: Statistics? = null,
) : Measured
