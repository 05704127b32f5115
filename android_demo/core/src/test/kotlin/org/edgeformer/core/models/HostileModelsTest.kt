package org.edgeformer.core.models

import org.edgeformer.core.BundleError
import org.edgeformer.core.Golden
import org.edgeformer.core.Json
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.Target
import org.edgeformer.core.TensorSpec
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import java.nio.ByteBuffer
import java.util.Base64
import kotlin.random.Random

class HostileModelsTest {
    private val cases = Golden.json("hostile_models.json")["cases"].list.filter { it["target"].text != "coreml" }

    @TestFactory
    fun `model files that break a rule are refused`(): List<DynamicTest> =
        Golden.tests(cases, { _, case -> case["name"].text }) { _, case ->
            if (case["error"].isNull) return@tests check(case, bytesOf(case))
            val error = assertThrows(BundleError::class.java) { check(case, bytesOf(case)) }
            assertEquals(1, error.message?.lines()?.size)
        }

    /** Whatever a file's bytes are, a reader of it ends, with an answer or in a line. */
    @Test
    fun `changed bytes end in nothing else than a refusal`() {
        val random = Random(0)
        for (case in cases.filter { it["error"].isNull }) {
            val valid = bytesOf(case)
            repeat(2000) {
                val changed = valid.copyOf()
                repeat(1 + random.nextInt(3)) { changed[random.nextInt(changed.size)] = random.nextInt().toByte() }
                try {
                    check(case, changed)
                } catch (error: BundleError) {
                    assertTrue(error.message.orEmpty().lines().size == 1)
                }
            }
        }
    }

    private fun bytesOf(case: Json): ByteArray =
        Base64.getDecoder().decode(case["files"][case["program"]["file"].text].text)

    private fun check(case: Json, bytes: ByteArray) {
        val stated = case["program"]
        val (x, y) = listOf("x", "y").map { TensorSpec(it, "float32", stated[it].ints) }
        val program = ProgramSpec("main", stated["file"].text, stated["entry"].text, listOf(x), listOf(y))
        val sizes = case["files"].keys.associateWith { Base64.getDecoder().decode(case["files"][it].text).size.toLong() }
        val target = Target.values().first { it.key == case["target"].text }
        val found = checkModelFile(target, program.file, ByteBuffer.wrap(bytes), sizes, listOf(program))
        compareOperators(case["operators"].keys.associateWith { case["operators"][it].int }, found.operators)
    }
}
