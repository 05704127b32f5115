package org.edgeformer.core.models

import org.edgeformer.core.BundleError
import org.edgeformer.core.toStart
import java.nio.ByteBuffer

private const val VARINT = 0
private const val FIXED64 = 1
private const val BYTES = 2
private const val FIXED32 = 5
private const val MAX_FIELDS = 2_000_000

/** The fields that one reader has looked at in a file, and where it is. */
internal class ProtobufFile(bytes: ByteBuffer, val where: String) {
    val bytes: ByteBuffer = bytes.duplicate().also { toStart(it) }
    private var fields = 0

    /** The message that the file is. */
    val message: Message get() = Message(this, 0, bytes.limit())

    fun count() {
        if (++fields > MAX_FIELDS) spoiled("expected at most $MAX_FIELDS fields")
    }

    fun spoiled(how: String): Nothing = throw BundleError("$where: the model is spoiled: $how")
}

/** A field of a message: a number, or the bytes from [start] to [end]. */
internal class ProtobufField(private val file: ProtobufFile, val id: Int, private val kind: Int, value: Long, end: Int) {
    private val number = value
    private val limit = end

    /** An integer. */
    val long: Long get() = if (kind == VARINT) number else mixed()

    /** An integer of 32 bits. */
    val int: Int get() = if (long in Int.MIN_VALUE..Int.MAX_VALUE) long.toInt() else file.spoiled("field $id is too large")

    /** A message of its own. */
    val message: Message get() = if (kind == BYTES) Message(file, number.toInt(), limit) else mixed()

    /** How many bytes it has. */
    val size: Int get() = if (kind == BYTES) limit - number.toInt() else mixed()

    val text: String
        get() = if (kind == BYTES) String(ByteArray(size) { file.bytes.get(number.toInt() + it) }, Charsets.UTF_8) else mixed()

    /** Integers: one, or many in one field. */
    fun longs(add: (Long) -> Unit) {
        if (kind == VARINT) return add(number)
        val reader = Message(file, size.let { number.toInt() }, limit)
        while (reader.hasMore) {
            file.count()
            add(reader.varint())
        }
    }

    private fun mixed(): Nothing = file.spoiled("field $id has another type")
}

/** A protobuf message between two places of a file, read field by field without trusting it. */
internal class Message(private val file: ProtobufFile, private var next: Int, private val end: Int) {
    val hasMore: Boolean get() = next < end

    /** Every field in the file's order. Fields that occur twice are given twice. */
    inline fun forEach(use: (ProtobufField) -> Unit) {
        while (hasMore) use(field())
    }

    fun field(): ProtobufField {
        file.count()
        val tag = varint()
        val id = (tag ushr 3).toInt()
        if (tag ushr 3 !in 1..0x1FFFFFFFL) file.spoiled("a field has no number")
        return when (val kind = (tag and 7).toInt()) {
            VARINT -> ProtobufField(file, id, kind, varint(), 0)
            FIXED64 -> skip(id, kind, 8)
            FIXED32 -> skip(id, kind, 4)
            BYTES -> {
                val size = varint()
                if (size !in 0..(end - next).toLong()) file.spoiled("field $id leaves its message")
                skip(id, kind, size.toInt())
            }
            else -> file.spoiled("field $id is a group, which no bundle uses")
        }
    }

    fun varint(): Long {
        var value = 0L
        for (shift in 0..63 step 7) {
            if (next >= end) file.spoiled("a number is cut off")
            val byte = file.bytes.get(next++).toInt()
            value = value or ((byte and 0x7F).toLong() shl shift)
            if (byte >= 0) return value
        }
        file.spoiled("a number has more than ten bytes")
    }

    private fun skip(id: Int, kind: Int, size: Int): ProtobufField {
        if (size > end - next) file.spoiled("field $id leaves its message")
        val start = next
        next += size
        return ProtobufField(file, id, kind, start.toLong(), next)
    }
}
