package org.edgeformer.demo

import android.content.Context
import org.edgeformer.core.EdgeFormerError
import org.edgeformer.core.pipelines.ClassificationResult

private const val SHOWN_ANSWERS = 3

/** What a person can be told of a failure: errors of input and device are written for people. */
fun Context.describe(error: Exception): String =
    if (error is EdgeFormerError) error.message.orEmpty() else getString(R.string.unexpected, error.toString())

/** The best labels with their scores, a line each. */
fun Context.describe(result: ClassificationResult): String {
    val best = result.top(SHOWN_ANSWERS)
    return best.labels.zip(best.scores).joinToString("\n") { (label, score) ->
        getString(R.string.answer_row, label, 100 * score)
    }
}

/** How long an answer took, and what gave it. */
fun Context.describeCost(result: ClassificationResult, executedBy: String): String {
    val cost = result.statistics ?: return ""
    return getString(R.string.timing, cost.preprocessMs + cost.runMs + cost.postprocessMs, executedBy)
}
