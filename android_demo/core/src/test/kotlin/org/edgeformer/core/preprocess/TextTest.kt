package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.edgeformer.core.Json
import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.TEXT_INPUTS
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.TextPreprocessing
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import java.io.File
import java.security.MessageDigest

class TextTest {
    private val golden = Golden.json("wordpiece.json")
    private val zoo = File(Golden.repository, golden["tokenizers"]["zoo"].text).readBytes()

    @TestFactory
    fun `ids and types of hostile texts`() = golden["tokenizers"].keys.sorted().flatMap { name ->
        val data = if (name == "zoo") zoo else golden["tokenizers"][name].text.toByteArray()
        val encoders = HashMap<Int, TextEncoder>()
        val cases = golden["cases"].list.filter { it["tokenizer"].text == name }
        Golden.tests(cases, { index, _ -> "$name $index" }) { _, case ->
            check(encoders.getOrPut(case["max"].int) { encoder(data, case["max"].int) }, case)
        }
    }

    private fun check(encoder: TextEncoder, case: Json) {
        val text = case["text"].text
        val pair = case["pair"].textOrNull
        val found = encoder.encode(if (pair == null) RawText.Single(text) else RawText.Pair(text, pair))
        val ids = case["ids"].ints
        assertEquals(ids, row(found, "input_ids").take(ids.size), text)
        assertEquals(case["types"].ints, row(found, "token_type_ids").take(ids.size), text)
        assertEquals(ids.size, row(found, "attention_mask").sum(), text)
        assertEquals(case["truncated"].boolean, found.truncated, text)
    }

    @TestFactory
    fun `a tokenizer has bounds`() =
        Golden.tests(Golden.json("hostile_tokenizers.json")["cases"].list, { _, case -> case["name"].text }) { _, case ->
            val data = case["file"].text.toByteArray()
            if (case["error"].isNull) {
                TextTokenizer.read(data, "tokenizer.json")
            } else {
                assertThrows(BundleError::class.java) { TextTokenizer.read(data, "tokenizer.json") }
            }
        }

    @TestFactory
    fun `tokenizers of every kind`(): List<DynamicTest> {
        val file = Golden.json("tokenizers.json")
        val texts = file["texts"].list.map { it.text }
        return Golden.tests(file["cases"].list, { _, case -> case["tokenizer"].text }) { _, case ->
            val data = file["tokenizers"][case["tokenizer"].text].text.toByteArray()
            val tokenizer = TextTokenizer.read(data, "tokenizer.json")
            assertEquals(case["texts"].text.split(" "), texts.map { hash(tokenizer, it) })
            val pairs = (0 until 8).map { hash(tokenizer, texts[it + 1], texts[it]) }
            assertEquals(case["pairs"].text.split(" "), pairs)
            if (case["blocks"].text.isEmpty()) return@tests
            val size = file["block"].int
            val blocks = file["firsts"].ints.map { first ->
                val codes = (first until first + size).filter { it !in 0xD800..0xDFFF }.map { String(Character.toChars(it)) }
                hash(tokenizer, codes.joinToString("") { "${it}a $it" })
            }
            assertEquals(case["blocks"].text.split(" "), blocks)
        }
    }

    private fun hash(tokenizer: TextTokenizer, text: String, pair: String? = null): String {
        val found = tokenizer.encodeWhole(text, pair)
        val told = StringBuilder()
        for ((index, token) in found.tokens.withIndex()) {
            told.append("${found.ids[index]},${found.types[index]},${token?.start ?: 0},${token?.end ?: 0},${token?.word ?: -1};")
        }
        val digest = MessageDigest.getInstance("SHA-256").digest(told.toString().toByteArray())
        return digest.joinToString("") { "%02x".format(it) }.take(6)
    }

    /** Each of these takes minutes where a step is quadratic. */
    @Test
    fun `long texts of one word`() {
        val file = Golden.json("tokenizers.json")
        for (name in file["tokenizers"].keys) {
            val tokenizer = TextTokenizer.read(file["tokenizers"][name].text.toByteArray(), "tokenizer.json")
            for (text in listOf("a", "ab", " ", "\u5b57", "\u0301", "A", "\r", "1", "'s", "<s>")) {
                tokenizer.encodeWhole(text.repeat(100_000 / text.length), null)
            }
        }
    }

    @Test
    fun `the zoo's tokenizer as in transformers`() {
        val cases = Golden.json("text.json")
        val encoder = encoder(zoo, cases["seq_len"].int)
        for (case in cases["cases"].list) {
            val pair = case["pair"].textOrNull
            val text = case["text"].text
            val found = encoder.encode(if (pair == null) RawText.Single(text) else RawText.Pair(text, pair))
            assertEquals(case["input_ids"].ints, row(found, "input_ids").take(case["input_ids"].list.size))
        }
    }

    @TestFactory
    fun `every code point`(): List<DynamicTest> {
        val unicode = Golden.json("unicode.json")
        val size = unicode["block"].int
        return Golden.tests(unicode["blocks"].list, { _, block -> "%06X".format(block["first"].int) }) { _, block ->
            val codes = (block["first"].int until block["first"].int + size).filter { it !in 0xD800..0xDFFF }
            for ((name, normalizer) in NORMALIZERS) {
                val found = hash(codes) { normalizer.normalize(CodePoints().apply { add(it, 0) }).string() }
                assertEquals(block[name].text, found, name)
            }
            assertEquals(block["split"].text, hash(codes) { words(it).joinToString("|") }, "split")
        }
    }

    @TestFactory
    fun `marks in canonical order`(): List<DynamicTest> {
        val normalizer = NORMALIZERS.getValue("all")
        return Golden.tests(Golden.json("unicode.json")["cases"].list, { index, _ -> "$index" }) { _, case ->
            assertEquals(case["normalized"].text, normalizer.normalize(CodePoints.of(case["text"].text)).string())
        }
    }

    @Test
    fun `a text of marks alone`() {
        // U+0301 has class 230, U+0316 class 220. Sorted mark by mark, these take minutes.
        val marks = CodePoints().apply { repeat(40_000) { add(0x301, 0); add(0x316, 0) } }
        val sorted = Unicode.decompose(marks)
        assertEquals("\u0316".repeat(40_000) + "\u0301".repeat(40_000), sorted.string())
    }

    @Test
    fun `what is no input`() {
        val encoder = encoder(zoo, 8)
        assertThrows(InputError::class.java) { encoder.encode(RawText.Single("half \ud83d of a pair")) }
        assertThrows(InputError::class.java) { encoder.encode(RawText.Single("a".repeat(MAX_TEXT_CHARACTERS + 1))) }
        assertThrows(InputError::class.java) { encoder.encode(RawText.TokenIds(emptyList())) }
        assertThrows(InputError::class.java) { encoder.encode(RawText.TokenIds(listOf(1_000_000))) }
        assertThrows(InputError::class.java) { encoder(zoo, 3).encode(RawText.Pair("a", "b")) }
        assertThrows(BundleError::class.java) { encoder(zoo, 2) }
        assertThrows(BundleError::class.java) { encoder("{}".toByteArray(), 8) }
        val other = zoo.decodeToString().replace("BertPreTokenizer", "UnicodeScripts").toByteArray()
        assertThrows(BundleError::class.java) { encoder(other, 8) }
    }

    @Test
    fun `the smallest bucket that fits`() {
        val programs = listOf(16, 4, 8).map { program(it) }
        val encoder = TextEncoder(TextPreprocessing("t", 0, null), zoo, programs)
        assertEquals("seq_4", encoder.encode(RawText.TokenIds(listOf(2, 3, 3, 3))).program)
        assertEquals("seq_8", encoder.encode(RawText.TokenIds(List(5) { 3 })).program)
        val cut = encoder.encode(RawText.TokenIds(List(20) { 3 }))
        assertEquals("seq_16" to true, cut.program to cut.truncated)
    }

    private fun encoder(data: ByteArray, size: Int) =
        TextEncoder(TextPreprocessing("t", 0, null), data, listOf(program(size)))

    private fun program(size: Int) =
        ProgramSpec("seq_$size", "m", "main", TEXT_INPUTS.map { TensorSpec(it, "int32", listOf(1, size)) }, emptyList())

    private fun row(found: EncodedText, name: String): List<Int> = found.inputs.getValue(name).toArray().toList()

    private fun words(code: Int): List<String> = when (code) {
        in Unicode.whiteSpace -> listOf("a", "b")
        in Unicode.punctuation -> listOf("a", String(Character.toChars(code)), "b")
        else -> listOf("a" + String(Character.toChars(code)) + "b")
    }

    private fun hash(codes: List<Int>, result: (Int) -> String): String {
        val digest = MessageDigest.getInstance("SHA-256")
        for (code in codes) digest.update((result(code) + "\n").toByteArray())
        return digest.digest().joinToString("") { "%02x".format(it) }.take(16)
    }

    private companion object {
        val NORMALIZERS = mapOf(
            "all" to BertNormalizer(true, true, true, true),
            "clean" to BertNormalizer(true, false, false, false),
            "chinese" to BertNormalizer(false, true, false, false),
            "strip" to BertNormalizer(false, false, true, false),
            "lower" to BertNormalizer(false, false, false, true),
        )
    }
}
