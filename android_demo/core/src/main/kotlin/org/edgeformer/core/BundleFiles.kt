package org.edgeformer.core

import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer

/** The files of a bundle that nobody has checked yet: a folder's or a zip's. Calls from several threads are safe. */
interface BundleFiles : Closeable {
    /** What messages call it. */
    val what: String

    /** The size of each file in bytes, by name. */
    val sizes: Map<String, Long>

    /** A file's bytes as read-only memory, mapped rather than read. It stays valid after `close`. */
    fun map(name: String): ByteBuffer

    /** The bytes of a small file that no hash vouches for. */
    fun read(name: String, maxBytes: Int): ByteArray {
        val size = sizes[name] ?: throw BundleError("$what: no $name in it: expected a bundle's folder or zip")
        if (size > maxBytes) throw BundleError("$name: expected at most $maxBytes bytes, found $size")
        val bytes = map(name)
        return ByteArray(bytes.capacity()).also { bytes.get(it) }
    }

    /** Refuses a file for which a checksum beside it is not this one. */
    fun checkCrc(name: String, crc: Long) = Unit

    /** Refuses a bundle with bytes in it that no signature covers. */
    fun checkCanonical() = Unit

    /** Where a file lies by itself; null inside a zip. */
    fun file(name: String): File?

    /** Lets go of what is open. A second call does nothing. */
    override fun close()
}
