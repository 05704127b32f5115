package org.edgeformer.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.TestFactory

class RequiredTest {
    private val signatures = Golden.json("signatures.json")
    private val releases = Golden.json("releases.json")

    @TestFactory
    fun `keys and signatures`() = Golden.tests(signatures["cases"].list, { _, case -> case["name"].text }) { _, case ->
        expect(case["error"].textOrNull) {
            val keys = case["keys"].takeUnless { it.isNull }?.list?.map { bytesOf(it.text) }
            val signature = case["signature"].textOrNull?.let(::bytesOf)
            checkSignature(signature, signatures["manifest"].text.toByteArray(), Required(keys).keys)
        }
    }

    @TestFactory
    fun `texts of releases`() = Golden.tests(releases["cases"].list, { _, case -> case["name"].text }) { _, case ->
        val read = { parseRelease(case["text"].text.toByteArray(), releases["bundle"].text) }
        if (case["version"].isNull) expect("BundleError") { read() } else assertEquals(case["version"].value, read())
    }

    @TestFactory
    fun `names and versions that are asked for`() =
        Golden.tests(releases["required"].list, { _, case -> case["name"].text }) { _, case ->
            val manifest = ModelBundle.open(Golden.file("tiny-text.zip")).use { it.manifest }.copy(name = case["bundle"].text)
            expect(case["error"].textOrNull) {
                val (name, version) = case["required"]["name"].textOrNull to case["required"]["version"].value as Long?
                Required(null, name, version).check(manifest, case["found"].value as Long?)
            }
        }

    private fun expect(error: String?, work: () -> Unit) {
        if (error == null) return work()
        val found = assertThrows(EdgeFormerError::class.java) { work() }
        assertEquals(error, found.javaClass.simpleName)
        assertEquals(1, found.message?.lines()?.size)
    }
}
