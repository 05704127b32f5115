package org.edgeformer.core

import java.io.Closeable
import java.io.File
import java.io.FileInputStream
import java.io.FileOutputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest
import java.util.zip.CRC32

/** Bundles whose copied files an app keeps. */
const val KEPT_COPIES = 4

/**
 * An open bundle whose every file has the size and hash that its manifest states.
 *
 * Files are mapped into memory, so a bundle must not be overwritten while it is open: write the new one beside it and
 * rename. Calls from several threads are safe.
 */
class ModelBundle private constructor(val manifest: BundleManifest, private val files: BundleFiles) : Closeable {
    /** Those that this bundle has written or checked. */
    private val copies = HashSet<File>()

    /** The size of all files that the manifest lists, in bytes. */
    val sizeBytes: Long get() = manifest.files.values.fold(0L) { sum, entry -> sum + entry.size }

    /**
     * A listed file's bytes, read-only and mapped into memory.
     *
     * @throws BundleError the manifest does not list it.
     */
    fun map(name: String): ByteBuffer {
        if (name !in manifest.files) throw BundleError("no file ${shorten(name)} in the bundle ${manifest.name}")
        return files.map(name)
    }

    /** The bytes of a listed file, copied. */
    fun readBytes(name: String): ByteArray {
        val bytes = map(name).duplicate()
        return ByteArray(bytes.capacity()).also { bytes.get(it) }
    }

    /** The text of a listed UTF-8 file. */
    fun readText(name: String): String = StrictJson.decode(readBytes(name), name)

    /**
     * A listed file as a file of its own, for engines that take paths: where it lies, or a copy.
     *
     * @param cache a private folder for copies of what lies inside a zip. A copy of before is used again if its hash is
     *   right: the system may have ended the app, or the disk may have been full, while it was written. Copies of the
     *   [KEPT_COPIES] bundles that were used last stay; an engine that still maps an older one keeps its bytes.
     */
    fun fileOf(name: String, cache: File): File = synchronized(copies) {
        val bytes = map(name)
        files.file(name)?.let { return it }
        // Files that refer to others lie in one folder with them, so the copy is the whole bundle's.
        val folder = File(cache, manifest.filesHash())
        val copy = File(folder, name)
        if (copy in copies && copy.isFile) return copy
        if (!isWhole(copy, manifest.files.getValue(name))) write(bytes, copy, name)
        folder.setLastModified(System.currentTimeMillis())
        removeOldCopies(cache)
        copies += copy
        return copy
    }

    private fun write(bytes: ByteBuffer, copy: File, name: String) {
        try {
            copy.parentFile?.mkdirs()
            val partial = File.createTempFile("copy", null, copy.parentFile)
            FileOutputStream(partial).use { it.channel.write(bytes) }
            if (!partial.renameTo(copy)) throw IOException("it cannot be renamed to ${copy.path}")
        } catch (error: IOException) {
            throw BundleError("$name: cannot be copied to ${copy.parent}: ${error.message}", error)
        }
    }

    /** Lets go of the files. What was mapped stays valid. A second call does nothing. */
    override fun close() = files.close()

    companion object {
        /**
         * Opens a bundle's folder, or a stored zip of it, and checks all of it: this reads every file once, so keep it
         * off the main thread.
         *
         * @param required whose bundle it must be, and which. What is checked is mapped, not copied: the bundle must lie
         *   where only the app writes.
         * @throws BundleError it does not follow BUNDLE.md, or is not what is required; the message says where.
         * @throws InputError signatures cannot be checked on this platform.
         */
        fun open(path: File, required: Required = Required()): ModelBundle = when {
            path.isDirectory -> open(Folder(path), required)
            path.isFile -> open(Archive.open(path), required)
            else -> throw BundleError("no bundle at ${path.path}: expected a bundle's folder or zip")
        }

        /** Opens a bundle and checks all of it; `files` are closed with it, or here where it is refused. */
        fun open(files: BundleFiles, required: Required = Required()): ModelBundle = try {
            val bytes = files.read(MANIFEST_NAME, MAX_MANIFEST_BYTES)
            val signature = if (SIGNATURE_NAME in files.sizes) files.read(SIGNATURE_NAME, SIGNATURE_BYTES) else null
            checkSignature(signature, bytes, required.keys)
            val manifest = BundleManifest.parse(bytes)
            compareNames(manifest, files.sizes)
            if (REFUSED_FILE in manifest.files) {
                throw BundleError("the gates of its conversion refused this bundle ($REFUSED_FILE): convert it otherwise")
            }
            // All sizes before any hash: nothing long is read for a bundle that is refused anyway.
            manifest.files.forEach { (name, entry) -> compareSize(name, entry, files) }
            if (required.keys != null) files.checkCanonical()
            checkSizes(manifest)
            refuseHoles(manifest, files)
            required.check(manifest, readRelease(manifest, files))
            manifest.files.forEach { (name, entry) -> compareHash(name, entry, files) }
            ModelBundle(manifest, files)
        } catch (error: EdgeFormerError) {
            files.close()
            throw error
        }
    }
}

/** The hash of all files' names and hashes, which no other bundle has: copies of its files lie in a folder of this name. */
fun BundleManifest.filesHash(): String {
    val digest = MessageDigest.getInstance("SHA-256")
    files.toSortedMap().forEach { (name, entry) -> digest.update("$name ${entry.sha256}\n".toByteArray()) }
    return hexadecimal(digest.digest())
}

private val COPIES_NAME = Regex("[0-9a-f]{64}")

private fun removeOldCopies(cache: File) {
    val copies = cache.listFiles().orEmpty().filter { COPIES_NAME.matches(it.name) }
    copies.sortedByDescending { it.lastModified() }.drop(KEPT_COPIES).forEach { it.deleteRecursively() }
}

private fun compareNames(manifest: BundleManifest, sizes: Map<String, Long>) {
    val extra = (sizes.keys - manifest.files.keys - MANIFEST_NAME - SIGNATURE_NAME).minOrNull()
    if (extra != null) throw BundleError("extra file ${shorten(extra)}: the manifest does not list it")
    val missing = (manifest.files.keys - sizes.keys).minOrNull() ?: return
    throw BundleError("file ${shorten(missing)} is missing: the manifest lists it")
}

private fun compareSize(name: String, entry: FileEntry, files: BundleFiles) {
    val size = files.sizes.getValue(name)
    if (size != entry.size) {
        throw BundleError("$name: expected ${entry.size} bytes as in the manifest, found $size: download it again")
    }
}

private fun isWhole(file: File, entry: FileEntry): Boolean =
    file.isFile && file.length() == entry.size && FileInputStream(file).use { input ->
        val digest = MessageDigest.getInstance("SHA-256")
        chunks(input.channel.map(FileChannel.MapMode.READ_ONLY, 0, entry.size)) { chunk, count ->
            digest.update(chunk, 0, count)
        }
        hexadecimal(digest.digest()) == entry.sha256
    }

private fun compareHash(name: String, entry: FileEntry, files: BundleFiles) {
    val digest = MessageDigest.getInstance("SHA-256")
    val crc = CRC32()
    chunks(files.map(name)) { chunk, count ->
        digest.update(chunk, 0, count)
        crc.update(chunk, 0, count)
    }
    if (hexadecimal(digest.digest()) != entry.sha256) {
        throw BundleError("$name: its SHA-256 differs from the manifest's: the file is corrupted, download it again")
    }
    files.checkCrc(name, crc.value)
}

private fun hexadecimal(bytes: ByteArray): String {
    val digits = "0123456789abcdef"
    return String(CharArray(2 * bytes.size) { digits[bytes[it / 2].toInt() shr (if (it % 2 == 0) 4 else 0) and 15] })
}
