package org.edgeformer.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class PublishedIndexTest {
    private val golden = Golden.json("published.json")
    private val keys = listOf(bytesOf(golden["key"].text))

    @TestFactory
    fun `published indexes`() = Golden.tests(golden["cases"].list, { _, case -> case["name"].text }) { _, case ->
        val known = case["known"].textOrNull?.let { PublishedIndex.read(it.toByteArray(), keys) }
        val read = {
            val index = PublishedIndex.read(case["text"].text.toByteArray(), keys)
            index.checkNewer(known, secondsOf(golden["now"].text))
            index
        }
        val error = case["error"].textOrNull
        if (error != null) {
            val found = assertThrows(EdgeFormerError::class.java) { read() }
            assertEquals(error, found.javaClass.simpleName)
            assertEquals(1, found.message?.lines()?.size)
        } else {
            val index = read()
            assertEquals(case["facts"]["number"].value, index.number)
            assertEquals(case["facts"]["id"].text, index.bundles.getValue("tiny").id)
        }
    }

    @Test
    fun times() {
        val seconds = mapOf(
            "2000-03-01T00:00:00Z" to 951_868_800L,
            "2027-01-10T00:00:00Z" to 1_799_539_200L,
            "2028-02-29T23:59:59Z" to 1_835_481_599L,
            "2100-03-01T00:00:00Z" to 4_107_542_400L,
        )
        for ((text, expected) in seconds) assertEquals(expected, secondsOf(text), text)
        assertThrows(BundleError::class.java) { secondsOf("2100-02-29T00:00:00Z") }
    }

    @Test
    fun `where a file lies`() {
        assertEquals("files/ab/${"ab".repeat(32)}", PublishedFile("ab".repeat(32), 1).address)
    }
}
