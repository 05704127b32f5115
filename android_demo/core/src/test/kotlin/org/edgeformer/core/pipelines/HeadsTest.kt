package org.edgeformer.core.pipelines

import org.edgeformer.core.Activation
import org.edgeformer.core.Classification
import org.edgeformer.core.EngineError
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class HeadsTest {
    private val cases = Golden.json("heads.json")["cases"].list
    private val zeroShot = Golden.json("zero_shot.json")["cases"].list

    @TestFactory
    fun `scores as in torch`() = Golden.tests(cases, { index, _ -> "$index" }) { _, case ->
        val logits = case["logits"].list.map { (it.value as? String)?.toFloat() ?: it.double.toFloat() }.toFloatArray()
        val outputs = mapOf("logits" to FloatTensor.of(logits, 1, logits.size))
        val activation = Activation.values().first { it.key == case["activation"].text }
        val head = Classification(logits.indices.map { it.toString() }, activation)
        if (case["error"].isNull) {
            val found = classify(outputs, head)
            assertEquals(case["order"].ints.map { it.toString() }, found.labels)
            for ((expected, score) in case["scores"].list.zip(found.scores)) assertEquals(expected.double, score, 1e-9)
        } else {
            assertThrows(EngineError::class.java) { classify(outputs, head) }
        }
    }

    @TestFactory
    fun `labels of a call as in torch`() = Golden.tests(zeroShot, { index, _ -> "$index" }) { _, case ->
        val logits = case["logits"].list.map { row -> row.list.map { it.double.toFloat() }.toFloatArray() }
        val head = Classification(case["labels"].list.map { it.text }, Activation.SOFTMAX)
        val options = ZeroShotOptions(logits.indices.map { it.toString() }, multiLabel = case["multi_label"].boolean)
        val found = zeroShot(logits, head, options)
        assertEquals(case["order"].ints.map { it.toString() }, found.labels)
        for ((expected, score) in case["scores"].list.zip(found.scores)) assertEquals(expected.double, score, 1e-6)
    }

    @Test
    fun `what is no label of a call`() {
        assertThrows(InputError::class.java) { ZeroShotOptions(emptyList()) }
        assertThrows(InputError::class.java) { ZeroShotOptions(listOf("a", "")) }
        assertThrows(InputError::class.java) { ZeroShotOptions(listOf("a"), "no place") }
        assertThrows(InputError::class.java) { entailmentOf(Classification(listOf("on", "off"), Activation.SOFTMAX)) }
    }

    @Test
    fun `the best labels`() {
        val result = ClassificationResult(listOf("a", "b", "c"), listOf(0.5, 0.3, 0.2))
        assertEquals(listOf("a", "b"), result.top(2).labels)
        assertEquals(result, result.top(9))
        assertThrows(InputError::class.java) { result.top(0) }
    }
}
