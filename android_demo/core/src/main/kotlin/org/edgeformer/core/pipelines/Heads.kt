package org.edgeformer.core.pipelines

import org.edgeformer.core.Activation
import org.edgeformer.core.Classification
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Score
import org.edgeformer.core.Tensor
import kotlin.math.abs
import kotlin.math.exp

/**
 * Labels and probabilities from the only output, logits (1, number of labels), best first; equal scores keep the
 * bundle's order.
 *
 * @throws EngineError the logits hold NaN or infinity.
 */
fun classify(outputs: Map<String, Tensor>, head: Classification, truncated: Boolean = false): ClassificationResult {
    val logits = onlyRow(outputs)
    val scores = when (head.activation) {
        Activation.SOFTMAX -> softmax(logits)
        Activation.SIGMOID -> sigmoid(logits)
    }
    val order = scores.indices.sortedByDescending { scores[it] } // stable
    return ClassificationResult(order.map { head.labels[it] }, order.map { scores[it] }, truncated)
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
