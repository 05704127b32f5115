package org.edgeformer.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import java.time.Instant

class PublishedIndexTest {
    private val golden = Golden.json("published.json")
    private val keys = listOf(bytesOf(golden["key"].text))

    @TestFactory
    fun `indexes of published bundles`() = Golden.tests(golden["cases"].list, { _, case -> case["name"].text }) { _, case ->
        val known = case["known"].textOrNull?.let { PublishedIndex.read(it.toByteArray(), keys) }
        val read = {
            val index = PublishedIndex.read(case["text"].text.toByteArray(), keys)
            index.checkNewer(known, Instant.parse(golden["now"].text))
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
    fun `where a file lies`() {
        assertEquals("files/ab/${"ab".repeat(32)}", PublishedFile("ab".repeat(32), 1).address)
    }
}
