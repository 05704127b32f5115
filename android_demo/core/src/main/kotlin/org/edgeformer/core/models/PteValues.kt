package org.edgeformer.core.models

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** ScalarType: its number to its name and size in bytes; what is not here is not computed with. */
internal val PTE_TYPES = mapOf(
    0 to ("uint8" to 1), 1 to ("int8" to 1), 2 to ("int16" to 2), 3 to ("int32" to 4), 4 to ("int64" to 8),
    5 to ("float16" to 2), 6 to ("float32" to 4), 7 to ("float64" to 8), 11 to ("bool" to 1), 15 to ("bfloat16" to 2),
)
private val INTEGERS = setOf(3, 4)
private const val DYNAMIC_BOUND = 1
private const val ABSENT = -1

/**
 * A value of a method.
 *
 * @property kind a letter of VALUE_KINDS.
 * @property shape of a tensor.
 * @property dtype of a tensor, its number in ScalarType.
 * @property isConstant whether it is a tensor whose bytes are the file's own.
 * @property items of a list, the numbers of the values in it; absent ones are left out.
 * @property numbers gives those of a small constant of integers; null: it is none.
 * @property place a tensor's planned memory; null: it has none.
 */
internal class PteValue(
    val kind: Char,
    val shape: Shape = emptyList(),
    val dtype: Int = -1,
    val isConstant: Boolean = false,
    val items: List<Int> = emptyList(),
    val numbers: (() -> List<Long>)? = null,
    val place: PtePlace? = null,
) {
    /** Whether a kernel's operand of that kind may be this. */
    fun fits(expected: Char): Boolean = when {
        expected in 'a'..'z' && kind == 'N' -> true
        expected == 'S' || expected == 's' -> kind in "IBD"
        expected == 'O' -> kind in "OV"
        expected == 'D' -> kind in "DI"
        expected in 'a'..'z' -> kind == expected - 32
        else -> kind == expected
    }
}

/** Bytes of a method's planned memory: the number of the memory, and from where to where. */
internal data class PtePlace(val memory: Long, val begin: Long, val end: Long)

/**
 * Reads the values of a file's methods.
 *
 * @param constants where each constant's bytes begin, up to the end of their segment.
 * @param states the same of each segment of states.
 * @param file the whole file.
 * @param steps what may still be looked at in it.
 */
internal class PteValues(
    private val constants: List<Piece>,
    private val states: List<List<Piece>>,
    file: ByteBuffer,
    private val steps: Steps,
) {
    private val content = file.duplicate().order(ByteOrder.LITTLE_ENDIAN)

    /** All values of a method; memory: the sizes that it plans. */
    fun read(tables: List<FlatTable>, memory: List<Long>): List<PteValue> {
        val values = tables.mapIndexed { number, table -> value(number, table, memory) }
        for (value in values) {
            for (item in value.items) {
                val kind = values.getOrNull(item)?.kind ?: refuse("a list has the value $item of ${values.size}")
                if ((value.kind in "VO") != (kind == 'T') || (value.kind == 'L' && kind != 'I')) {
                    refuse("a list has the value $item, which is of another kind")
                }
            }
        }
        return values
    }

    private fun value(number: Int, table: FlatTable, memory: List<Long>): PteValue {
        val kind = VALUE_KINDS.getOrNull(table.byte(0) - 1)
        val content = table.table(1)
        if (kind == null || content == null) refuse("value $number is of a kind that no reader knows")
        if (kind == 'T') return tensor("tensor $number", content, memory)
        if (kind !in "LVO") return PteValue(kind)
        val items = if (kind == 'L') content.numbers(0, 8) else content.ints(0).map { it.toLong() }
        if (items.any { it !in (if (kind == 'O') ABSENT else 0)..MAX_SIZE }) {
            refuse("value $number is a list of values that are not there")
        }
        return PteValue(kind, items = items.map { it.toInt() }.filter { it != ABSENT })
    }

    private fun tensor(what: String, table: FlatTable, memory: List<Long>): PteValue {
        val dtype = table.byte(0)
        val (_, bytes) = PTE_TYPES[dtype] ?: refuse("$what has the type $dtype, which is no dense number")
        val (buffer, plan, extra) = Triple(table.uint(5), table.table(6), table.table(9))
        val isConstant = plan == null && buffer > 0
        val shape = checkShape(table.ints(2).map { it.toLong() }, what, computed = !isConstant)
        val order = table.numbers(3, 1).sorted()
        if (table.int(1) != 0 || table.byte(7) != 0 || order != shape.indices.map { it.toLong() }) refuse("$what is not dense")
        if (table.byte(8) > DYNAMIC_BOUND) refuse("$what has a shape without bound")
        if (extra != null && (extra.byte(2) != 0 || extra.byte(3) != 0)) {
            refuse("$what lies in another file or on a device")
        }
        val size = bytesOf(shape, 8 * bytes)
        val place = plan?.let { place(it, size, memory, what) }
        if (buffer > 0) checkContent(what, buffer, size, isConstant, extra?.long(0) ?: 0)
        val isSteering = isConstant && dtype in INTEGERS && elements(shape) <= MAX_STEERING
        val steering = if (isSteering) ({ numbers(constants[buffer.toInt()], elements(shape).toInt(), bytes) }) else null
        return PteValue('T', shape, dtype, isConstant, numbers = steering, place = place)
    }

    private fun place(plan: FlatTable, size: Long, memory: List<Long>, what: String): PtePlace {
        val number = plan.uint(0)
        if (number !in 1 until memory.size.toLong()) refuse("$what is planned into memory $number of ${memory.size}")
        val begin = plan.uint(1) or (plan.uint(2) shl 32)
        checkRange(begin, size, memory[number.toInt()], what)
        return PtePlace(number, begin, begin + size)
    }

    private fun numbers(room: Piece, count: Int, bytes: Int): List<Long> {
        steps.spend(count) // many operators may read one
        return List(count) {
            if (bytes == 4) content.getInt(room.begin + 4 * it).toLong() else content.getLong(room.begin + 8 * it)
        }
    }

    private fun checkContent(what: String, buffer: Long, size: Long, isConstant: Boolean, state: Long) {
        val rooms = when {
            isConstant -> constants
            state in states.indices.map { it.toLong() } -> states[state.toInt()]
            else -> refuse("$what starts with the state $state of ${states.size}")
        }
        if (buffer >= rooms.size || size > rooms[buffer.toInt()].size) refuse("$what has fewer bytes than its shape needs")
    }
}
