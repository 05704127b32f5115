package org.edgeformer.demo

import android.content.Context
import org.edgeformer.core.EdgeFormerError
import org.edgeformer.core.pipelines.ClassificationResult
import org.edgeformer.core.pipelines.EmbeddingResult
import org.edgeformer.core.pipelines.EntityResult
import org.edgeformer.core.pipelines.FillResult
import org.edgeformer.core.pipelines.Measured
import org.edgeformer.core.pipelines.ScoreResult
import org.edgeformer.core.pipelines.SpanResult

private const val SHOWN_ANSWERS = 3
private const val SHOWN_COMPONENTS = 4

/** What a person can be told of a failure: errors of input and device are written for people. */
fun Context.describe(error: Exception): String =
    if (error is EdgeFormerError) error.message.orEmpty() else getString(R.string.unexpected, error.toString())

/** What an answer says, a line for each of its parts. */
fun Context.describe(result: Measured): String = when (result) {
    is ClassificationResult -> result.top(SHOWN_ANSWERS).let { best -> rows(best.labels.zip(best.scores)) }
    is SpanResult -> rows(result.answers.map { it.text.ifEmpty { getString(R.string.answer_none) } to it.score })
    is EntityResult -> rows(result.entities.map { getString(R.string.answer_entity, it.text, it.label) to it.score })
    is FillResult -> rows(result.fills.map { it.text to it.score })
    is ScoreResult -> getString(R.string.answer_score, result.score)
    is EmbeddingResult -> {
        val first = result.vector.take(SHOWN_COMPONENTS).joinToString { getString(R.string.answer_score, it.toDouble()) }
        getString(R.string.answer_embedding, result.vector.size, first)
    }
    else -> result.toString()
}

private fun Context.rows(parts: List<Pair<String, Double>>): String =
    if (parts.isEmpty()) getString(R.string.answer_nothing)
    else parts.joinToString("\n") { (text, score) -> getString(R.string.answer_row, text, 100 * score) }

/** How long an answer took, and what gave it. */
fun Context.describeCost(result: Measured, executedBy: String): String {
    val cost = result.statistics ?: return ""
    return getString(R.string.timing, cost.preprocessMs + cost.runMs + cost.postprocessMs, executedBy)
}
