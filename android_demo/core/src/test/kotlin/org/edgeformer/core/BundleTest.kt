package org.edgeformer.core

import java.io.File
import java.io.FileInputStream
import java.io.RandomAccessFile
import java.nio.file.Files
import java.security.KeyPairGenerator
import java.security.Signature
import java.util.zip.ZipFile
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory
import org.junit.jupiter.api.io.TempDir

class BundleTest {
    @TempDir
    lateinit var place: File

    private val zip = Golden.file("tiny-text.zip")

    @Test
    fun `a zip and its folder hold the same`() {
        val inZip = ModelBundle.open(zip)
        val inFolder = ModelBundle.open(unpacked())
        assertEquals(inZip.manifest, inFolder.manifest)
        for (name in inZip.manifest.files.keys) assertArrayEquals(inFolder.readBytes(name), inZip.readBytes(name))
        assertEquals(inZip.manifest.files.values.sumOf { it.size }, inZip.sizeBytes)
    }

    @Test
    fun `a zip may lie in another file, as in an APK`() {
        val whole = File(place, "app.apk")
        whole.writeBytes(ByteArray(4096) + zip.readBytes() + ByteArray(100))
        Archive.open(FileInputStream(whole), 4096, zip.length(), "the asset").let(ModelBundle::open).use { bundle ->
            assertEquals("tiny-text", bundle.manifest.name)
            assertEquals(256, bundle.map("model.bin").capacity())
        }
    }

    @Test
    fun `a file of its own is a copy where the bundle is a zip`() {
        val cache = File(place, "cache")
        val copy = ModelBundle.open(zip).fileOf("model.bin", cache)
        assertArrayEquals(ByteArray(256) { it.toByte() }, copy.readBytes())
        assertEquals(copy, ModelBundle.open(zip).fileOf("model.bin", cache))
        // As long as the file, and not the file: an app that ended while it wrote, or a full disk.
        copy.writeBytes(ByteArray(256))
        assertEquals(copy, ModelBundle.open(zip).fileOf("model.bin", cache))
        assertArrayEquals(ByteArray(256) { it.toByte() }, copy.readBytes())
        assertEquals(ModelBundle.open(zip).manifest.filesHash(), copy.parentFile.name)
        val folder = unpacked()
        assertEquals(File(folder, "model.bin"), ModelBundle.open(folder).fileOf("model.bin", cache))
    }

    @Test
    fun `copies of the bundles that were used last stay`() {
        val cache = File(place, "cache")
        val older = List(KEPT_COPIES + 1) { File(cache, "$it".repeat(64)).apply { mkdirs(); setLastModified(1000L * (9 - it)) } }
        val other = File(cache, "other").apply { mkdirs() }
        val bundle = ModelBundle.open(Golden.file("tiny-text.zip"))
        val copy = bundle.fileOf(CASES_FILE, cache)
        assertTrue(copy.isFile && other.isDirectory)
        assertEquals(older.take(KEPT_COPIES - 1), older.filter { it.exists() })
    }

    @Test
    fun `corrupted folders`() {
        refused("SHA-256 differs") { File(it, "model.bin").writeBytes(ByteArray(256)) }
        refused("expected 256 bytes") { File(it, "model.bin").appendBytes(ByteArray(1)) }
        refused("is missing") { File(it, "tokenizer.json").delete() }
        refused("no manifest.json") { File(it, "manifest.json").delete() }
        refused("extra file") { File(it, "vectors/more.txt").writeText("x") }
        refused("empty folder") { File(it, "empty").mkdir() }
        refused("expected 64 bytes") { File(it, "manifest.sig").writeBytes(ByteArray(63)) }
        refused("expected at most 64 bytes") { File(it, "manifest.sig").writeBytes(ByteArray(65)) }
        refused("symbolic link") {
            File(it, "model.bin").delete()
            Files.createSymbolicLink(File(it, "model.bin").toPath(), File(it, "tokenizer.json").toPath())
        }
    }

    @Test
    fun `a file that was never written is not hashed`() {
        val (whole, written) = 100 * 1024 * 1024L to 16 * 1024 * 1024
        fun write(folder: File, bytes: ByteArray) {
            val manifest = File(folder, "manifest.json")
            manifest.writeText(manifest.readText().replace("\"size\": 256", "\"size\": $whole"))
            RandomAccessFile(File(folder, "model.bin"), "rw").use { file ->
                file.write(bytes)
                file.setLength(whole)
            }
        }
        refused("were never written") { write(it, ByteArray(0)) }
        // A sixth of it is there: it is hashed.
        refused("SHA-256 differs") { write(it, ByteArray(written) { 1 }) }
    }

    @Test
    fun `what file managers leave in a folder is passed over, by exact name`() {
        val folder = unpacked()
        for (name in listOf(".DS_Store", "Thumbs.db", "desktop.ini")) {
            File(folder, name).writeText("x")
            File(folder, "vectors/$name").writeText("x")
        }
        assertEquals("tiny-text", ModelBundle.open(folder).manifest.name)
        refused("extra file") { File(it, "thumbs.db").writeText("x") }
        refused("extra file") { File(it, "._manifest.json").writeText("x") }
        refused("empty folder") { File(it, "more").apply { mkdir() }.let { more -> File(more, ".DS_Store").writeText("x") } }
    }

    @Test
    fun `a bundle that its conversion's gates refused is never opened`() {
        refused("gates of its conversion refused this bundle") { folder ->
            File(folder, "refused.json").writeText("{}")
            val hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
            val manifest = File(folder, "manifest.json")
            val entry = "\"refused.json\": {\"sha256\": \"$hash\", \"size\": 2},"
            manifest.writeText(manifest.readText().replace("\"files\": {", "\"files\": {$entry"))
        }
    }

    @Test
    fun `a signature is no extra file`() {
        val folder = unpacked()
        File(folder, "manifest.sig").writeBytes(ByteArray(64))
        assertEquals("tiny-text", ModelBundle.open(folder).manifest.name)
    }

    @Test
    fun `a required signature`() {
        val pair = KeyPairGenerator.getInstance("Ed25519").generateKeyPair()
        val key = pair.public.encoded.takeLast(32).toByteArray()
        val required = Required(listOf(key))
        val folder = unpacked()
        assertThrows(BundleError::class.java) { ModelBundle.open(folder, required) }
        val manifest = File(folder, "manifest.json")
        val signer = Signature.getInstance("Ed25519").apply { initSign(pair.private) }
        signer.update("edgeformer-bundle-manifest-1\n".toByteArray() + manifest.readBytes())
        File(folder, "manifest.sig").writeBytes(signer.sign())
        assertEquals("tiny-text", ModelBundle.open(folder, required).manifest.name)
        val other = KeyPairGenerator.getInstance("Ed25519").generateKeyPair().public.encoded.takeLast(32).toByteArray()
        assertEquals("tiny-text", ModelBundle.open(folder, Required(listOf(other, key))).manifest.name)
        assertThrows(BundleError::class.java) { ModelBundle.open(folder, Required(listOf(other))) }
        assertThrows(BundleError::class.java) { ModelBundle.open(folder, Required(listOf(key), "another")) }
        assertThrows(BundleError::class.java) { ModelBundle.open(folder, Required(listOf(key), "tiny-text", 1)) }
        manifest.appendText(" ")
        assertThrows(BundleError::class.java) { ModelBundle.open(folder, required) }
    }

    @TestFactory
    fun `zips in which something hides`(): List<DynamicTest> {
        val golden = Golden.json("zips.json")
        val base = Golden.file(golden["base"].text).readBytes()
        return Golden.tests(golden["cases"].list, { _, case -> case["name"].text }) { _, case ->
            val file = File(place, "case.zip").also { it.writeBytes(spliced(base, case["splices"].list)) }
            if (case["error"].isNull) {
                assertEquals("tiny-text", ModelBundle.open(file).manifest.name)
                val isCanonical = try {
                    Archive.open(file).use { it.checkCanonical() }
                    true
                } catch (error: BundleError) {
                    false
                }
                assertEquals(case["canonical"].boolean, isCanonical)
            } else {
                val error = assertThrows(BundleError::class.java) { ModelBundle.open(file) }
                assertEquals(1, error.message?.lines()?.size)
            }
        }
    }

    private fun spliced(base: ByteArray, splices: List<Json>): ByteArray {
        var changed = ByteArray(0)
        var position = 0
        for (splice in splices) {
            val (start, end) = splice.list.take(2).map { it.int }
            changed += base.copyOfRange(position, start) + bytesOf(splice.list[2].text)
            position = end
        }
        return changed + base.copyOfRange(position, base.size)
    }

    @Test
    fun `a zip with any byte of its members or headers changed is refused or the same`() {
        val bytes = zip.readBytes()
        val good = ModelBundle.open(zip).manifest
        for (at in bytes.indices step 97) {
            val corrupted = bytes.copyOf().also { it[at] = (it[at] + 1).toByte() }
            val file = File(place, "corrupted.zip").also { it.writeBytes(corrupted) }
            try {
                assertEquals(good, ModelBundle.open(file).manifest, "byte $at")
            } catch (error: BundleError) {
                assertEquals(1, error.message?.lines()?.size)
            }
        }
    }

    @Test
    fun `zips that are cut off`() {
        val bytes = zip.readBytes()
        for (length in listOf(0, 10, 22, 100, bytes.size / 2, bytes.size - 1)) {
            val file = File(place, "cut.zip").also { it.writeBytes(bytes.copyOf(length)) }
            assertThrows(BundleError::class.java) { ModelBundle.open(file) }
        }
    }

    private fun refused(problem: String, corrupt: (File) -> Unit) {
        val folder = unpacked().also(corrupt)
        val error = assertThrows(BundleError::class.java) { ModelBundle.open(folder) }
        assertTrue(problem in error.message.orEmpty(), error.message)
    }

    private fun unpacked() = unpacked("tiny-text.zip", place)
}

/** A golden zip as a folder of its own in `place`. */
fun unpacked(name: String, place: File): File {
    val folder = Files.createTempDirectory(place.toPath(), "bundle").toFile()
    ZipFile(Golden.file(name)).use { members ->
        for (entry in members.entries()) {
            val file = File(folder, entry.name).also { it.parentFile.mkdirs() }
            file.writeBytes(members.getInputStream(entry).readBytes())
        }
    }
    return folder
}
