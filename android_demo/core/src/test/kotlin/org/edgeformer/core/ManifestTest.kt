package org.edgeformer.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class ManifestTest {
    private val cases = Golden.json("manifests.json")["cases"].list

    @TestFactory
    fun `takes and refuses what all readers do`() = Golden.tests(cases, { _, case -> case["name"].text }) { _, case ->
        if (case["error"].isNull) accept(case) else refuse(case)
    }

    private fun accept(case: Json) {
        val manifest = BundleManifest.parse(case["text"].text.toByteArray())
        val facts = case["facts"]
        assertEquals(facts["name"].text, manifest.name)
        assertEquals(facts["task"].text, manifest.task.key)
        assertEquals(facts["target"].text, manifest.target.key)
        assertEquals(facts["programs"].list.map { it.text }, manifest.programs.map { it.name })
        assertEquals(facts["preprocessing"].text, manifest.preprocessing.kind)
        assertEquals(facts["postprocessing"].text, manifest.postprocessing.kind)
        assertEquals(facts["files"].list.map { it.text }, manifest.files.keys.sorted())
        assertEquals(facts["android_api"].int, manifest.requires.androidApi)
    }

    private fun refuse(case: Json) {
        assertEquals("BundleError", case["error"].text)
        val base = cases.first { it["name"].text == case["base"].text }["text"].text
        assertEquals(2, base.split(case["find"].text).size)
        val text = base.replace(case["find"].text, case["put"].text)
        val error = assertThrows(BundleError::class.java) { BundleManifest.parse(text.toByteArray()) }
        assertEquals(1, error.message?.lines()?.size)
    }

    @Test
    fun `characters that a terminal obeys are refused in any text`() {
        val base = cases.first { it["name"].text == "text" }["text"].text
        for (character in listOf('\u007f', '\u0080', '\u009b', '\u009f', '\u202a', '\u202e', '\u2066', '\u2069')) {
            for (written in listOf(character.toString(), "\\u%04x".format(character.code))) {
                val text = base.replace("\"tests/tiny", "\"tests/tiny$written")
                assertNotEquals(base, text)
                assertThrows(BundleError::class.java) { BundleManifest.parse(text.toByteArray()) }
            }
        }
    }

    @Test
    fun `a size that a file of its kind cannot have is refused before anything is read`() {
        val manifest = BundleManifest.parse(cases.first { it["name"].text == "text" }["text"].text.toByteArray())
        checkSizes(manifest)
        for (name in listOf("tokenizer.json", "vectors/cases.json", "vectors/tensors.safetensors", "report.json")) {
            val large = manifest.files.getValue(name).copy(size = 0xFFFFFFFFL)
            assertThrows(BundleError::class.java) { checkSizes(manifest.copy(files = manifest.files + (name to large))) }
        }
    }
}
