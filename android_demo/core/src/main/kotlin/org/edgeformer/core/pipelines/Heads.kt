package org.edgeformer.core.pipelines

import org.edgeformer.core.Activation
import org.edgeformer.core.Classification
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.Score
import org.edgeformer.core.Tensor
import org.edgeformer.core.shorten
import java.util.Locale
import kotlin.math.abs
import kotlin.math.exp

/**
 * Labels and probabilities from the only output, logits (1, number of labels), best first; equal scores keep the
 * bundle's order.
 *
 * @throws EngineError the logits hold NaN or infinity.
 */
fun classify(outputs: Map<String, Tensor>, head: Classification, truncated: Boolean = false): ClassificationResult =
    classify(onlyRow(outputs), head, truncated)

/** The same of logits (number of labels). */
internal fun classify(logits: FloatArray, head: Classification, truncated: Boolean): ClassificationResult {
    val scores = when (head.activation) {
        Activation.SOFTMAX -> softmax(logits)
        Activation.SIGMOID -> sigmoid(logits)
    }
    val order = scores.indices.sortedByDescending { scores[it] } // stable
    return ClassificationResult(order.map { head.labels[it] }, order.map { scores[it] }, truncated)
}

/** Of labels that a call names where the call says nothing else: that of transformers' pipeline. */
const val DEFAULT_TEMPLATE = "This example is {}."
const val MAX_ZERO_SHOT_LABELS = 1000

/**
 * Labels that the bundle was not trained for: how well each, as a hypothesis, follows from the text.
 *
 * @property labels to choose from.
 * @property template a sentence in which each label stands for {}.
 * @property multiLabel any number of labels may hold, each by itself; else their scores sum to 1.
 */
data class ZeroShotOptions(
    val labels: List<String>,
    val template: String = DEFAULT_TEMPLATE,
    val multiLabel: Boolean = false,
) {
    init {
        if (labels.size !in 1..MAX_ZERO_SHOT_LABELS || labels.any { it.isEmpty() }) {
            throw InputError("labels: expected 1 to $MAX_ZERO_SHOT_LABELS, none of them empty")
        }
        if ("{}" !in template) throw InputError("template: expected a sentence with {} for the label, found $template")
    }
}

/**
 * The number of the label that says that a hypothesis follows.
 *
 * @throws InputError the labels are not those of natural language inference.
 */
fun entailmentOf(head: Classification): Int {
    val found = head.labels.indexOfFirst { it.lowercase(Locale.ROOT).startsWith("entail") }
    if (found < 0 || head.labels.size < 2) {
        throw InputError(
            "labels of a call need a model of natural language inference, one of whose labels starts with 'entail', " +
                "found ${shorten(head.labels)}",
        )
    }
    return found
}

/**
 * The labels of a call, best first; equal scores keep the call's order.
 *
 * @param logits of each label's hypothesis, of a model of natural language inference.
 * @throws InputError no label of the bundle says that a hypothesis follows.
 */
fun zeroShot(
    logits: List<FloatArray>,
    head: Classification,
    options: ZeroShotOptions,
    truncated: Boolean = false,
): ClassificationResult {
    val entailment = entailmentOf(head)
    val contradiction = if (entailment == 0) head.labels.size - 1 else 0
    val scores = if (options.multiLabel || options.labels.size == 1) {
        logits.map { softmax(floatArrayOf(it[contradiction], it[entailment]))[1] }
    } else {
        softmax(FloatArray(logits.size) { logits[it][entailment] }).toList()
    }
    val order = scores.indices.sortedByDescending { scores[it] } // stable
    return ClassificationResult(order.map { options.labels[it] }, order.map { scores[it] }, truncated)
}

/**
 * The only output (1, D) as a vector.
 *
 * @throws EngineError it holds NaN or infinity.
 */
fun embed(outputs: Map<String, Tensor>, truncated: Boolean = false) = EmbeddingResult(onlyRow(outputs), truncated)

/**
 * The only output (1, 1) as a score.
 *
 * @throws EngineError it holds NaN or infinity.
 */
fun score(outputs: Map<String, Tensor>, head: Score, truncated: Boolean = false): ScoreResult {
    val value = onlyRow(outputs)
    return ScoreResult(if (head.isSigmoid) sigmoid(value).single() else value.single().toDouble(), truncated)
}

/** Probabilities (N) that sum to one, without overflow at any finite logits (N). */
fun softmax(logits: FloatArray): DoubleArray {
    val largest = logits.fold(Double.NEGATIVE_INFINITY) { most, value -> maxOf(most, value.toDouble()) }
    val exponents = DoubleArray(logits.size) { exp(logits[it] - largest) }
    val sum = exponents.sum()
    return DoubleArray(logits.size) { exponents[it] / sum }
}

/** Independent probabilities (N), without overflow at any finite logits (N). */
fun sigmoid(logits: FloatArray): DoubleArray = DoubleArray(logits.size) {
    val small = exp(-abs(logits[it].toDouble()))
    if (logits[it] >= 0) 1 / (1 + small) else small / (1 + small)
}

/** The only output's only row, finite. */
internal fun onlyRow(outputs: Map<String, Tensor>): FloatArray {
    val (name, output) = outputs.entries.single()
    val values = (output as FloatTensor).toArray()
    if (!values.all(Float::isFinite)) {
        throw EngineError(
            "the model's output $name holds NaN or infinity: verify the bundle, or convert at a higher precision",
        )
    }
    return values
}
