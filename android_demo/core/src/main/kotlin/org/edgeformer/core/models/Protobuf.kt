package org.edgeformer.core.models

import org.edgeformer.core.toStart
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val VARINT = 0
private const val FIXED64 = 1
private const val BYTES = 2
private const val FIXED32 = 5

/** Of one file. A speech model has some 100,000. */
private const val MAX_FIELDS = 1 shl 20

/** What a field of a message may be; lists of numbers are packed or not. */
internal enum class Wire(vararg kinds: Int) {
    INT(VARINT), FLOAT(FIXED32), PART(BYTES), INTS(VARINT, BYTES), FLOATS(FIXED32, BYTES);

    val kinds: List<Int> = kinds.toList()
}

/** The fields that a message may have, by number. */
internal typealias Known = Map<Int, Wire>

/** A piece of the file. */
internal class Piece(val begin: Int, val end: Int) {
    val size: Int get() = end - begin
}

/**
 * Protobuf's wire format, read strictly and without copies: only what is asked for is decoded.
 *
 * @param file the whole file.
 */
internal class Protobuf(file: ByteBuffer) {
    private val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN).also { toStart(it) }
    private var left = MAX_FIELDS
    private var next = 0

    /** The piece that the file is. */
    val whole: Piece get() = Piece(0, bytes.limit())

    /** A message's fields, all of which are known. */
    fun message(piece: Piece, known: Known, what: String): Message {
        val found = HashMap<Int, MutableList<Any>>()
        next = piece.begin
        while (next < piece.end) {
            spend(1, what)
            val key = varint(piece.end, what)
            val number = (key ushr 3).toInt()
            val kind = (key and 7).toInt()
            if (key ushr 3 !in 1..0x1FFFFFFFL) refuse("$what has a field without a number")
            val expected = known[number] ?: refuse("$what has an unknown field $number")
            if (kind !in expected.kinds) refuse("$what: its field $number has the wire type $kind")
            val value = if (kind == VARINT) varint(piece.end, what) else piece(kind, piece.end, what)
            found.getOrPut(number) { ArrayList() }.add(value)
        }
        return Message(this, found, what)
    }

    /** The integers of a piece, one after the other. */
    fun integers(piece: Piece, what: String, add: (Long) -> Unit) {
        next = piece.begin
        while (next < piece.end) {
            spend(1, what)
            add(varint(piece.end, what))
        }
    }

    fun text(piece: Piece): String = String(ByteArray(piece.size) { bytes.get(piece.begin + it) }, Charsets.UTF_8)

    /** A signed number of 1, 2, 4 or 8 bytes of a piece. */
    fun number(piece: Piece, index: Int, size: Int): Long {
        val at = piece.begin + index * size
        return when (size) {
            1 -> bytes.get(at).toLong()
            2 -> bytes.getShort(at).toLong()
            4 -> bytes.getInt(at).toLong()
            else -> bytes.getLong(at)
        }
    }

    private fun piece(kind: Int, end: Int, what: String): Piece {
        val size = when (kind) {
            FIXED64 -> 8
            FIXED32 -> 4
            else -> varint(end, what)
        }
        if (size !in 0..(end - next).toLong()) refuse("$what ends inside a field")
        val begin = next
        next += size.toInt()
        return Piece(begin, next)
    }

    private fun varint(end: Int, what: String): Long {
        var value = 0L
        for (shift in 0..63 step 7) {
            if (next >= end) break
            val byte = bytes.get(next++).toInt()
            value = value or ((byte and 0x7F).toLong() shl shift)
            if (byte >= 0) return value
        }
        refuse("$what ends inside an integer")
    }

    /** Counts what is looked at. */
    fun spend(count: Int, what: String) {
        left -= minOf(count, MAX_FIELDS)
        if (left < 0) refuse("$what: the file has more than $MAX_FIELDS fields")
    }
}

/** The fields of a message, those of one number in the file's order. */
internal class Message(private val file: Protobuf, private val values: Map<Int, List<Any>>, private val what: String) {
    fun has(number: Int) = number in values

    fun int(number: Int): Long = one(number) as Long? ?: 0

    fun piece(number: Int): Piece? = one(number) as Piece?

    fun pieces(number: Int): List<Piece> = values[number].orEmpty().map { it as Piece }

    fun text(number: Int): String = piece(number)?.let(file::text) ?: ""

    fun texts(number: Int): List<String> = pieces(number).map(file::text)

    /** All integers of a field, packed or not. */
    fun ints(number: Int): List<Long> {
        val found = ArrayList<Long>()
        for (value in values[number].orEmpty()) {
            if (value is Long) found.add(value) else file.integers(value as Piece, what) { found.add(it) }
        }
        return found
    }

    /** How many bytes the pieces of a field have. */
    fun size(number: Int): Long = values[number].orEmpty().fold(0L) { sum, piece -> sum + (piece as Piece).size }

    private fun one(number: Int): Any? {
        val found = values[number] ?: return null
        return found.singleOrNull() ?: refuse("$what has its field $number twice")
    }
}
