package org.edgeformer.core

import java.io.ByteArrayOutputStream
import java.io.Closeable
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.util.zip.CRC32

private const val END_BYTES = 22
private const val END_SIGNATURE = 0x06054b50
private const val ENTRY_BYTES = 46
private const val ENTRY_SIGNATURE = 0x02014b50
private const val LOCAL_BYTES = 30
private const val LOCAL_SIGNATURE = 0x04034b50
private const val MAX_DIRECTORY_BYTES = 16 shl 20
private const val ENCRYPTED_FLAGS = 0x2041
private const val DESCRIPTOR_FLAG = 8

/** What a local header and the directory's entry both say: from the version needed to the sizes. */
private const val FACT_BYTES = 22
private const val FILE_TYPE_MASK = 0xF000
private const val PLAIN_FILE = 0x8000

// What a writer MUST state of every member: version 2.0, made on Unix on 1980-01-01 with mode 0100644.
private const val VERSION: Short = 20
private const val UNIX: Byte = 3
private const val DATE: Short = 33
private const val PLAIN_FILE_MODE = 0x81A4

/**
 * The stored zip of a bundle, in a file or in a part of one: an uncompressed asset of an APK is such a part.
 *
 * Nothing is unpacked: members are mapped where they lie. Zips of 4 GiB and more (zip64) are refused, as no phone maps
 * them.
 *
 * @param channel of the file; `close` closes it.
 * @param start where the zip starts in the file.
 * @param length of the zip.
 */
class Archive private constructor(
    override val what: String,
    private val channel: FileChannel,
    private val start: Long,
    private val length: Long,
    private val owner: Closeable,
) : BundleFiles {
    /** What the directory says of a member; [facts] are version, flags, method, time, date, CRC and both sizes. */
    private class Member(val size: Long, val crc: Long, val header: Long, val facts: ByteArray, val name: ByteArray)

    private val members: Map<String, Member>

    override val sizes: Map<String, Long> get() = members.mapValues { it.value.size }

    init {
        val found = reading { readDirectory() }
        checkDistinct(found.keys)
        members = found
    }

    override fun map(name: String): ByteBuffer {
        val member = members[name] ?: throw BundleError("$what: no ${shorten(name)} in it: expected a bundle's zip")
        val data = member.header + LOCAL_BYTES + member.name.size
        return reading { channel.map(FileChannel.MapMode.READ_ONLY, start + data, member.size) }
    }

    override fun read(name: String, maxBytes: Int): ByteArray {
        val bytes = super.read(name, maxBytes)
        checkCrc(name, CRC32().apply { update(bytes) }.value)
        return bytes
    }

    override fun checkCrc(name: String, crc: Long) {
        if (crc != members.getValue(name).crc) corrupted("${shorten(name)} has another CRC")
    }

    /** Compares every header with what BUNDLE.md asks of writers: sorted, one date, one permission, nothing between. */
    override fun checkCanonical() {
        val directory = ByteArrayOutputStream()
        var next = 0L
        for ((name, member) in members.toSortedMap()) {
            val header = canonicalHeader(name, member)
            if (member.header != next || !read(next, header.size).array().contentEquals(header)) notCanonical()
            directory.write(canonicalEntry(name, member))
            next += header.size + member.size
        }
        val end = canonicalEnd(directory.size(), next)
        if (next + directory.size() + end.size != length) notCanonical()
        if (!read(next, directory.size()).array().contentEquals(directory.toByteArray())) notCanonical()
        if (!read(length - end.size, end.size).array().contentEquals(end)) notCanonical()
    }

    private fun canonicalHeader(name: String, member: Member) = record(LOCAL_BYTES + name.length) {
        putInt(LOCAL_SIGNATURE).putShort(VERSION).putShort(0).putShort(0).putShort(0).putShort(DATE)
        putInt(member.crc.toInt()).putInt(member.size.toInt()).putInt(member.size.toInt())
        putShort(name.length.toShort()).putShort(0).put(name.toByteArray(Charsets.ISO_8859_1))
    }

    private fun canonicalEntry(name: String, member: Member) = record(ENTRY_BYTES + name.length) {
        putInt(ENTRY_SIGNATURE).put(VERSION.toByte()).put(UNIX).putShort(VERSION).putShort(0).putShort(0).putShort(0)
        putShort(DATE).putInt(member.crc.toInt()).putInt(member.size.toInt()).putInt(member.size.toInt())
        putShort(name.length.toShort()).putShort(0).putShort(0).putShort(0).putShort(0)
        putInt(PLAIN_FILE_MODE shl 16).putInt(member.header.toInt()).put(name.toByteArray(Charsets.ISO_8859_1))
    }

    private fun canonicalEnd(directoryBytes: Int, offset: Long) = record(END_BYTES) {
        putInt(END_SIGNATURE).putInt(0).putShort(members.size.toShort()).putShort(members.size.toShort())
        putInt(directoryBytes).putInt(offset.toInt()).putShort(0)
    }

    private inline fun record(size: Int, write: ByteBuffer.() -> Unit): ByteArray =
        ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN).apply(write).array()

    private fun notCanonical(): Nothing =
        throw BundleError("$what: it holds other bytes than its signed files give: pack it again")

    override fun file(name: String): File? = null

    override fun close() = owner.close()

    private fun readDirectory(): Map<String, Member> {
        if (length < END_BYTES) corrupted("its end record is missing")
        val end = read(length - END_BYTES, END_BYTES)
        if (end.getInt(0) != END_SIGNATURE || short(end, 20) != 0) corrupted("its end record is missing")
        val count = short(end, 10)
        val (size, offset) = int(end, 12) to int(end, 16)
        if (short(end, 4) != 0 || short(end, 6) != 0 || short(end, 8) != count) corrupted("expected a zip in one piece")
        if (count > MAX_FILES + 2 || size > MAX_DIRECTORY_BYTES) corrupted("expected at most $MAX_FILES files")
        if (offset + size + END_BYTES != length) corrupted("its directory does not end at its end record")
        val directory = read(offset, size.toInt())
        val found = LinkedHashMap<String, Member>()
        var next = 0
        repeat(count) { next = readEntry(directory, next, found) }
        if (next != directory.capacity()) corrupted("its directory holds more than it states")
        checkContiguous(found, offset)
        return found
    }

    /** Members fill the file up to its directory, each behind a header that says what the directory does. */
    private fun checkContiguous(found: Map<String, Member>, directory: Long) {
        var next = 0L
        for ((name, member) in found.entries.sortedBy { it.value.header }) {
            if (member.header != next) hidden("bytes before ${shorten(name)}")
            val expected = record(LOCAL_BYTES + member.name.size) {
                putInt(LOCAL_SIGNATURE).put(member.facts).putShort(member.name.size.toShort()).putShort(0)
                put(member.name)
            }
            if (!read(next, expected.size).array().contentEquals(expected)) hidden("another header of ${shorten(name)}")
            next += expected.size + member.size
        }
        if (next != directory) hidden("bytes before its directory")
    }

    private fun hidden(what: String): Nothing =
        corrupted("it holds $what, which its directory does not list (pack with edgeformer pack)")

    private fun readEntry(directory: ByteBuffer, at: Int, found: MutableMap<String, Member>): Int {
        if (at + ENTRY_BYTES > directory.capacity() || directory.getInt(at) != ENTRY_SIGNATURE) corrupted("its directory")
        val nameLength = short(directory, at + 28)
        val next = at + ENTRY_BYTES + nameLength
        if (next > directory.capacity()) corrupted("its directory is cut off")
        val nameBytes = ByteArray(nameLength) { directory.get(at + ENTRY_BYTES + it) }
        val name = String(nameBytes, Charsets.ISO_8859_1)
        checkEntry(name, directory, at)
        val size = int(directory, at + 24)
        val facts = ByteArray(FACT_BYTES) { directory.get(at + 6 + it) }
        val member = Member(size, int(directory, at + 16), int(directory, at + 42), facts, nameBytes)
        if (found.put(name, member) != null) throw BundleError("${shorten(name)} occurs twice in the zip")
        return next
    }

    private fun checkEntry(name: String, directory: ByteBuffer, at: Int) {
        val shown = shorten(name)
        if (name.endsWith("/")) throw BundleError("$shown: a zip's folder entry: expected files only")
        checkName(name)
        val type = (int(directory, at + 38) shr 16).toInt() and FILE_TYPE_MASK
        if (type != 0 && type != PLAIN_FILE) {
            throw BundleError("$shown is a link or device: a bundle holds plain files only")
        }
        val flags = short(directory, at + 8)
        if (flags and ENCRYPTED_FLAGS != 0) throw BundleError("$shown is encrypted: expected a stored zip")
        if (flags and DESCRIPTOR_FLAG != 0) hidden("a data descriptor of $shown")
        val size = int(directory, at + 24)
        if (short(directory, at + 10) != 0 || int(directory, at + 20) != size) {
            throw BundleError("$shown is compressed: expected a stored zip (pack with zip -0 -D -X -r)")
        }
        if (size >= Int.MAX_VALUE) throw BundleError("$shown: expected less than 2 GiB, found $size")
        // Extra fields, of which zip64's alone is allowed, and comments.
        if (short(directory, at + 30) != 0 || short(directory, at + 32) != 0) hidden("an extra field or comment of $shown")
    }

    private fun read(at: Long, count: Int): ByteBuffer {
        val bytes = ByteBuffer.allocate(count).order(ByteOrder.LITTLE_ENDIAN)
        if (at < 0 || at + count > length) corrupted("it points outside of itself")
        while (bytes.hasRemaining()) {
            if (channel.read(bytes, start + at + bytes.position()) < 0) corrupted("it is cut off")
        }
        return bytes
    }

    private fun short(bytes: ByteBuffer, at: Int) = bytes.getShort(at).toInt() and 0xFFFF

    private fun int(bytes: ByteBuffer, at: Int) = bytes.getInt(at).toLong() and 0xFFFFFFFFL

    private fun corrupted(how: String): Nothing = throw BundleError("$what: corrupted or truncated zip: $how")

    private inline fun <T> reading(read: () -> T): T = try {
        read()
    } catch (error: IOException) {
        throw BundleError("$what: cannot be read: ${error.message}", error)
    }

    companion object {
        /** Opens a zip in a file of its own. */
        fun open(file: File): Archive = try {
            open(FileInputStream(file), 0, file.length(), file.path)
        } catch (error: IOException) {
            throw BundleError("${file.path}: cannot be read: ${error.message}", error)
        }

        /**
         * Opens a zip in a part of a file, such as an asset's (`AssetFileDescriptor.createInputStream`).
         *
         * @param stream of the file; closed with the archive, or here where the zip is refused.
         */
        fun open(stream: FileInputStream, start: Long, length: Long, what: String): Archive = try {
            Archive(what, stream.channel, start, length, stream)
        } catch (error: BundleError) {
            stream.close()
            throw error
        }
    }
}

/** Passes on a buffer's bytes piece by piece; older platforms take no buffers of mapped memory. */
internal inline fun chunks(bytes: ByteBuffer, take: (ByteArray, Int) -> Unit) {
    val view = bytes.duplicate()
    toStart(view)
    val chunk = ByteArray(1 shl 16)
    while (view.hasRemaining()) {
        val count = minOf(chunk.size, view.remaining())
        view.get(chunk, 0, count)
        take(chunk, count)
    }
}
