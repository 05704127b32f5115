package org.edgeformer.core

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/** Plain files that file managers leave in folders that people look into: no part of a bundle. */
private val LEFT_BEHIND = setOf(".DS_Store", "Thumbs.db", "desktop.ini")

/** A bundle's folder. */
class Folder(private val folder: File) : BundleFiles {
    override val what: String get() = folder.path

    override val sizes: Map<String, Long> = LinkedHashMap<String, Long>().also { scan(folder, "", 1, it) }

    override fun file(name: String): File = File(folder, name)

    override fun map(name: String): ByteBuffer = try {
        RandomAccessFile(file(name), "r").use { it.channel.map(FileChannel.MapMode.READ_ONLY, 0, it.length()) }
    } catch (error: IOException) {
        throw BundleError("$name: cannot be read: ${error.message}", error)
    }

    override fun close() = Unit

    /** Names of all files below a folder; links, devices and empty folders are errors, not followed. */
    private fun scan(place: File, prefix: String, depth: Int, found: MutableMap<String, Long>) {
        if (depth > MAX_NAME_PARTS) throw BundleError("${shorten(prefix)}: more than $MAX_NAME_PARTS folders deep")
        val entries = place.listFiles()?.filterNot(::isLeftBehind)
            ?: throw BundleError("${place.path}: cannot be read: expected a folder")
        if (entries.isEmpty() && depth > 1) {
            throw BundleError("${shorten(prefix)} is an empty folder that the manifest does not list")
        }
        for (entry in entries.sortedBy { it.name }) {
            val name = prefix + entry.name
            if (isLink(entry)) throw BundleError("${shorten(name)} is a symbolic link: a bundle holds plain files only")
            when {
                entry.isDirectory -> scan(entry, "$name/", depth + 1, found)
                entry.isFile -> found[name] = entry.length()
                else -> throw BundleError("${shorten(name)} is not a plain file")
            }
            if (found.size > MAX_FILES + 2) throw BundleError("$what: expected at most $MAX_FILES files")
        }
    }

    private fun isLeftBehind(entry: File): Boolean = entry.name in LEFT_BEHIND && entry.isFile && !isLink(entry)

    /** The folder itself may lie behind links; what is in it may not be one. */
    private fun isLink(entry: File): Boolean {
        val resolved = File(entry.absoluteFile.parentFile.canonicalFile, entry.name)
        return resolved.canonicalFile != resolved.absoluteFile
    }
}
