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

    /** Where a file lies by itself; null inside a zip. */
    fun file(name: String): File?

    /** Lets go of what is open. A second call does nothing. */
    override fun close()
}
