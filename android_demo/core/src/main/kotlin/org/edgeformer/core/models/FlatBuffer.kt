package org.edgeformer.core.models

import org.edgeformer.core.shorten
import org.edgeformer.core.toStart
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val MAX_STEPS = 2_000_000
private const val MAX_DEPTH = 32

/** What a field of a flatbuffer's table may be. */
internal sealed class FlatField {
    /** A number of so many bytes. */
    class Number(val bytes: Int) : FlatField()

    /** A number of 1 to 8 bytes, or an offset that nobody here follows: eight bytes of the file are there. */
    object Anything : FlatField()

    /** An array of numbers of so many bytes each. */
    class Numbers(val bytes: Int) : FlatField()

    /** Text with a zero behind it. */
    object Text : FlatField()

    /** An array of texts. */
    object Texts : FlatField()

    /** A table, whose shape may refer to itself. */
    class Table(val shape: () -> FlatShape) : FlatField()

    /** An array of tables. */
    class Tables(val shape: () -> FlatShape) : FlatField()

    /** One of several tables, of which the number in the slot before says which; null: it must be another. */
    class Union(val shapeOf: (Int) -> FlatShape?) : FlatField()
}

/** The fields of a kind of table, by slot; null: nobody here follows such a field. Others are not known, and ignored. */
internal class FlatShape(private vararg val fields: FlatField?) {
    operator fun get(slot: Int): FlatField? = fields.getOrNull(slot)
}

/**
 * What may be looked at in all flatbuffers of a file: tables, texts and numbers of arrays, each as often as something
 * refers to it. Things that refer to one another in circles, or a million times to one, end here.
 */
internal class Steps {
    private var count = 0

    /** Counts what is looked at. */
    fun spend(more: Int) {
        count += minOf(more, MAX_STEPS) // no overflow: it is checked each time
        if (count > MAX_STEPS) refuse("corrupted: expected at most $MAX_STEPS tables, texts and numbers")
    }
}

/**
 * A flatbuffer that is read without trusting it: runtimes on phones follow whatever offsets it has.
 *
 * Every known field of a table has the type that its shape states, and lies inside the buffer, as does all below it.
 *
 * @param file the whole file.
 * @param begin where the buffer starts in it; its offsets count from there.
 * @param size of the buffer.
 * @param steps of the file.
 */
internal class FlatBuffer(file: ByteBuffer, private val begin: Int, val size: Int, private val steps: Steps) {
    private val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN).also { toStart(it) }

    /**
     * The table that the file starts with, after all of it was checked.
     *
     * @param identifier the four letters that tell the format.
     */
    fun root(identifier: String, shape: FlatShape): FlatTable {
        val found = String(CharArray(4) { if (size < 8) ' ' else (bytes.get(begin + 4 + it).toInt() and 0xFF).toChar() })
        if (found != identifier) corrupted("expected '$identifier' at its start, found ${shorten(found)}")
        return FlatTable(this, offset(0)).also { check(it, shape, 0) }
    }

    /** An unsigned number of 1, 2 or 4 bytes, or a signed one of 8. */
    fun number(at: Int, count: Int): Long {
        inside(at, count.toLong())
        return when (count) {
            1 -> bytes.get(begin + at).toLong() and 0xFF
            2 -> bytes.getShort(begin + at).toLong() and 0xFFFF
            4 -> bytes.getInt(begin + at).toLong() and 0xFFFFFFFFL
            else -> bytes.getLong(begin + at)
        }
    }

    /** Where the offset at a place leads. */
    fun offset(at: Int): Int {
        val target = at + number(at, 4)
        if (target <= at || target > size - 4) corrupted("an offset leaves it")
        return target.toInt()
    }

    /** The number of items of the array at a place; all of them lie inside the file. */
    fun count(at: Int, itemBytes: Int): Int {
        val count = number(at, 4)
        inside(at + 4, count * itemBytes)
        return count.toInt()
    }

    /** Counts what is looked at. */
    fun spend(count: Int) = steps.spend(count)

    /** The text at a place. */
    fun text(at: Int): String {
        val count = count(at, 1)
        spend(count)
        return String(ByteArray(count) { bytes.get(begin + at + 4 + it) }, Charsets.UTF_8)
    }

    fun corrupted(how: String): Nothing = refuse("corrupted: $how")

    private fun inside(at: Int, count: Long) {
        if (at < 0 || count < 0 || at + count > size) corrupted("it is cut off")
    }

    private fun check(table: FlatTable, shape: FlatShape, depth: Int) {
        if (depth > MAX_DEPTH) corrupted("nested deeper than $MAX_DEPTH tables")
        spend(1)
        for (slot in 0 until table.slots) {
            val at = table.place(slot) ?: continue
            shape[slot]?.let { check(it, table, slot, at, depth) }
        }
    }

    private fun check(field: FlatField, table: FlatTable, slot: Int, at: Int, depth: Int) {
        when (field) {
            is FlatField.Number -> table.inline(at, field.bytes)
            is FlatField.Anything -> number(at, 8)
            is FlatField.Numbers -> count(table.target(at), field.bytes)
            is FlatField.Text -> checkText(table.target(at))
            is FlatField.Texts -> table.target(at).let { list ->
                repeat(count(list, 4)) { checkText(offset(list + 4 + 4 * it)) }
            }
            is FlatField.Table -> check(FlatTable(this, table.target(at)), field.shape(), depth + 1)
            is FlatField.Tables -> table.target(at).let { list ->
                repeat(count(list, 4)) { check(FlatTable(this, offset(list + 4 + 4 * it)), field.shape(), depth + 1) }
            }
            is FlatField.Union -> {
                val kind = table.byte(slot - 1)
                val shape = field.shapeOf(kind) ?: corrupted("a table has options of the kind $kind, which no bundle uses")
                check(FlatTable(this, table.target(at)), shape, depth + 1)
            }
        }
    }

    private fun checkText(at: Int) {
        spend(1)
        val count = count(at, 1)
        if (number(at + 4 + count, 1) != 0L) corrupted("a text has no end")
    }
}

/** A table at a place of a flatbuffer. */
internal class FlatTable(private val file: FlatBuffer, private val at: Int) {
    private val fieldsAt: Int
    private val bytes: Int

    /** How many fields it may have. */
    val slots: Int

    init {
        // The place of the list of fields is signed, and counted backwards.
        val list = at - file.number(at, 4).toInt().toLong()
        if (list !in 0..file.size - 4L) file.corrupted("a table has no list of fields")
        fieldsAt = list.toInt()
        val listBytes = file.number(fieldsAt, 2).toInt()
        bytes = file.number(fieldsAt + 2, 2).toInt()
        if (listBytes < 4 || listBytes % 2 != 0 || bytes < 4) file.corrupted("a table has no list of fields")
        if (fieldsAt + listBytes > file.size || at + bytes > file.size) file.corrupted("a table leaves it")
        slots = (listBytes - 4) / 2
    }

    /** Where a field lies; null where it is not there. */
    fun place(slot: Int): Int? {
        if (slot >= slots) return null
        val offset = file.number(fieldsAt + 4 + 2 * slot, 2).toInt()
        return if (offset == 0) null else at + offset
    }

    /** Refuses a field that leaves its table. */
    fun inline(place: Int, count: Int) {
        if (place < at + 4 || place + count > at + bytes) file.corrupted("a field leaves its table")
    }

    /** Where a field that is an offset leads. */
    fun target(place: Int): Int {
        inline(place, 4)
        return file.offset(place)
    }

    /** A number of 4 bytes, signed. */
    fun int(slot: Int, default: Int = 0): Int = place(slot)?.let { file.number(it, 4).toInt() } ?: default

    /** A number of 2 bytes, unsigned. */
    fun short(slot: Int): Int = place(slot)?.let { file.number(it, 2).toInt() } ?: 0

    /** A number of 4 bytes, unsigned. */
    fun uint(slot: Int, default: Long = 0): Long = place(slot)?.let { file.number(it, 4) } ?: default

    /** A number of 1 byte, unsigned. */
    fun byte(slot: Int): Int = place(slot)?.let { file.number(it, 1).toInt() } ?: 0

    /** A number of 8 bytes, signed; an unsigned one is negative where it is too large for any file. */
    fun long(slot: Int, default: Long = 0): Long = place(slot)?.let { file.number(it, 8) } ?: default

    /** Whether the field is there. */
    fun has(slot: Int) = place(slot) != null

    /** How many items an array has; none where it is not there. */
    fun count(slot: Int, itemBytes: Int): Int = place(slot)?.let { file.count(target(it), itemBytes) } ?: 0

    /** A text; empty where it is not there. */
    fun text(slot: Int): String = place(slot)?.let { file.text(target(it)) } ?: ""

    /** An array of signed numbers of 4 bytes; empty where it is not there. */
    fun ints(slot: Int): List<Int> = numbers(slot, 4).map { it.toInt() }

    /** An array of numbers of 1 or 4 bytes, unsigned, or of 8, signed; empty where it is not there. */
    fun numbers(slot: Int, itemBytes: Int): List<Long> {
        val list = place(slot)?.let { target(it) } ?: return emptyList()
        val count = file.count(list, itemBytes)
        file.spend(count)
        return List(count) { file.number(list + 4 + itemBytes * it, itemBytes) }
    }

    /** Where the bytes of an array lie in the buffer; null where it is not there. */
    fun bytes(slot: Int): Piece? {
        val list = place(slot)?.let { target(it) } ?: return null
        return Piece(list + 4, list + 4 + file.count(list, 1))
    }

    /** A table; null where it is not there. */
    fun table(slot: Int): FlatTable? = place(slot)?.let { FlatTable(file, target(it)) }

    /** An array of tables; empty where it is not there. */
    fun tables(slot: Int): List<FlatTable> {
        val list = place(slot)?.let { target(it) } ?: return emptyList()
        val count = file.count(list, 4)
        file.spend(count)
        return List(count) { FlatTable(file, file.offset(list + 4 + 4 * it)) }
    }
}
