package org.edgeformer.core.models

import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.shorten
import java.nio.ByteBuffer
import java.nio.ByteOrder

// The extended header at byte 8: magic (4), its length (4), the program's size (8), the base of the segments (8).
private const val HEADER_AT = 8
private const val HEADER_BYTES = 24
private const val HEADER_MAGIC = 0x30306865

/** Of one method's plan. */
private const val MAX_MEMORY_BYTES = 1L shl 30
private const val XNNPACK = "XnnpackBackend"
private const val IN_SEGMENT = 1

/** The parts of a file behind its flatbuffer: the place of each segment, and the number of the one that has named data. */
internal class PteSegments(
    val file: ByteBuffer,
    val steps: Steps,
    private val places: List<Piece>,
    private val named: Map<String, Long>,
) {
    fun place(number: Long): Piece = places.getOrNull(minOf(number, MAX_SIZE.toLong()).toInt())
        ?: refuse("it names the segment $number of ${places.size}")

    fun namedSize(key: String): Long =
        place(named[key] ?: refuse("it names the data ${shorten(key)}, which it has not")).size.toLong()
}

/**
 * Looks at a `.pte` before ExecuTorch opens it.
 *
 * @param programs those that the manifest says this file has.
 * @return how often each kernel and delegate is called, and the rows of the tables that inputs index.
 * @throws Broken says which rule of BUNDLE.md and where.
 */
internal fun checkPte(file: ByteBuffer, programs: List<ProgramSpec>): Contents {
    val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    val length = file.capacity().toLong()
    if (length < HEADER_AT + HEADER_BYTES) refuse("no .pte file: it is shorter than its header")
    if (bytes.getInt(HEADER_AT) != HEADER_MAGIC || (bytes.getInt(HEADER_AT + 4).toLong() and 0xFFFFFFFFL) < HEADER_BYTES) {
        refuse("no .pte file with segments: convert the bundle again")
    }
    val (size, base) = bytes.getLong(HEADER_AT + 8) to bytes.getLong(HEADER_AT + 16)
    checkRange(0, size, length, "the program")
    checkRange(base, 0, length, "the segments' begin")
    val steps = Steps()
    val program = FlatBuffer(file, 0, size.toInt(), steps).root("ET12", PTE)
    val segments = segments(file, steps, program, base, size)
    if ((program.tables(2) + program.tables(3)).any { (it.bytes(0)?.size ?: 0) > 0 }) {
        refuse("it has constants or delegates' data in its flatbuffer")
    }
    val constants = program.table(5)?.let { rooms(it, segments) }.orEmpty()
    val values = PteValues(constants, program.tables(6).map { rooms(it, segments) }, file, steps)
    val counts = HashMap<String, Int>()
    val rows = HashMap<String, Map<String, Int>>()
    val names = HashSet<String>()
    for (plan in program.tables(1)) {
        val name = plan.text(0)
        if (!names.add(name)) refuse("it has the method ${shorten(name)} twice")
        try {
            rows += PtePlan(plan, segments, values, counts).check(programs.filter { it.entry == name })
        } catch (error: Broken) {
            refuse("method ${shorten(name)}: ${error.message}")
        }
    }
    programs.firstOrNull { it.entry !in names }?.let { refuse("it has no method ${shorten(it.entry)}") }
    return Contents(counts, rows)
}

private fun segments(file: ByteBuffer, steps: Steps, program: FlatTable, base: Long, size: Long): PteSegments {
    val places = program.tables(4).mapIndexed { number, table ->
        if (base < size) refuse("its segments begin inside its program")
        checkRange(table.long(0), table.long(1), file.capacity() - base, "segment $number")
        val begin = (base + table.long(0)).toInt()
        Piece(begin, begin + table.long(1).toInt())
    }
    val named = HashMap<String, Long>()
    for (table in program.tables(7)) {
        if (table.uint(1) >= places.size || named.put(table.text(0), table.uint(1)) != null) {
            refuse("it has the named data ${shorten(table.text(0))} twice, or in no segment")
        }
    }
    return PteSegments(file, steps, places, named)
}

/** The bytes of a segment from each offset on. */
private fun rooms(table: FlatTable, segments: PteSegments): List<Piece> {
    val offsets = table.numbers(1, 8)
    if (offsets.isEmpty()) return emptyList()
    val segment = segments.place(table.uint(0))
    return offsets.map {
        checkRange(it, 0, segment.size.toLong(), "a constant")
        Piece(segment.begin + it.toInt(), segment.end)
    }
}

/** A method: its values, and its instructions, which run in order. */
private class PtePlan(
    private val plan: FlatTable,
    private val segments: PteSegments,
    reader: PteValues,
    private val counts: HashMap<String, Int>,
) {
    private val values: List<PteValue>
    private val operators: List<String>
    private val delegates: List<Piece>
    private val inputs: List<Int>

    /** What is followed is memory, as a view in another shape is the same memory and no instruction. */
    private val trace: IndexTrace<Any>

    init {
        val memory = plan.numbers(8, 8)
        if (memory.any { it !in 0..MAX_MEMORY_BYTES } || memory.sum() > MAX_MEMORY_BYTES) {
            refuse("it plans ${shorten(memory)} bytes: expected at most 2^30")
        }
        if (plan.tables(9).any { it.byte(1) != 0 }) refuse("it plans memory of a device")
        values = reader.read(plan.tables(2), memory)
        operators = plan.tables(6).map { "${it.text(0)}.${it.text(1)}" }
        delegates = plan.tables(7).map(::delegate)
        inputs = plan.ints(3).map(::index)
        trace = IndexTrace((inputs + values.indices.filter { values[it].isConstant }).map(::key))
    }

    /** The rows of the tables that the programs' inputs index. */
    fun check(programs: List<ProgramSpec>): Rows {
        val outputs = plan.ints(4).map(::index)
        val chain = plan.tables(5).singleOrNull() ?: refuse("it has not one chain of instructions")
        chain.tables(2).forEach(::run)
        return programs.associate { program ->
            compare(program.inputs, inputs, "inputs")
            compare(program.outputs, outputs, "outputs")
            program.name to trace.rows(inputs.map(::key).zip(program.inputs.map { it.name }).toMap())
        }
    }

    private fun key(number: Int): Any = values[number].place ?: number

    /** What lay in the memory of a value is written over, in whole or in part. */
    private fun write(number: Int) {
        val place = values[number].place ?: return
        trace.forget { it is PtePlace && it.memory == place.memory && it.begin < place.end && place.begin < it.end }
    }

    private fun index(number: Int): Int {
        if (number !in values.indices) refuse("it names the value $number of ${values.size}")
        return number
    }

    private fun delegate(table: FlatTable): Piece {
        if (table.text(0) != XNNPACK) refuse("it has the delegate ${shorten(table.text(0))}: expected $XNNPACK")
        val reference = table.table(1)
        if (reference?.byte(0) != IN_SEGMENT) refuse("a delegate's data is in no segment")
        return segments.place(reference.uint(1))
    }

    private fun run(instruction: FlatTable) {
        val (kind, call) = instruction.byte(0) to instruction.table(1)
        if (call == null) refuse("it has an instruction without arguments")
        if (kind == FREE_CALL) {
            index(call.int(0))
            return
        }
        val number = call.int(0)
        val operands = call.ints(1).map { values[index(it)] }
        if (kind == DELEGATE_CALL) {
            val data = delegates.getOrNull(number) ?: refuse("it calls the delegate $number of ${delegates.size}")
            count(XNNPACK)
            if (operands.any { it.kind != 'T' }) refuse("it gives a delegate what is no tensor")
            call.ints(1).forEach(::write)
            return checkXnnpack(segments.file, data, segments::namedSize, operands.size, segments.steps)
        }
        val name = operators.getOrNull(number) ?: refuse("it calls the kernel $number of ${operators.size}")
        count(name)
        checkOperands(name, call.ints(1), operands)
    }

    private fun count(name: String) {
        counts[name] = (counts[name] ?: 0) + 1
    }

    private fun checkOperands(name: String, numbers: List<Int>, operands: List<PteValue>) {
        val kernel = PTE_KERNELS[name] ?: refuse("it calls ${shorten(name)}, which is none that a reader knows")
        // What a kernel returns is listed once more, as a list where there are several.
        if (operands.size != kernel.kinds.length + 1) refuse("$name is given ${operands.size} operands")
        kernel.kinds.forEachIndexed { place, expected ->
            if (!operands[place].fits(expected)) {
                refuse("operand $place of $name is ${operands[place].kind}: expected $expected")
            }
        }
        var written = numbers.subList(kernel.kinds.length - kernel.results, kernel.kinds.length)
        val last = operands.last()
        val returned = if (kernel.results > 1 && last.kind == 'V') last.items else listOf(numbers.last())
        if (name.startsWith("executorch_prim::")) {
            written = listOf(numbers.last())
        } else if (returned != written && last.kind != 'V') {
            refuse("$name returns what it does not write")
        }
        for (item in written.flatMap { values[it].items.ifEmpty { listOf(it) } }) {
            if (values[item].kind != 'T' || values[item].isConstant) refuse("$name writes to what is no tensor, or a constant")
            write(item)
        }
        if (name in PTE_MOVES) trace.move(key(numbers[0]), written.map(::key))
        PTE_INDICES[name]?.let { checkIndices(name, operands[0].shape.firstOrNull() ?: 0, key(numbers[it])) }
    }

    private fun checkIndices(name: String, rows: Int, indices: Any) {
        val source = trace.index(indices, rows)
        val constant = (source as? Int)?.let { values[it] }?.takeIf { it.isConstant }
        val numbers = constant?.numbers?.invoke().orEmpty()
        if (numbers.any { it !in 0 until rows }) refuse("$name takes a row of $rows by a number beyond them")
        // A quantized table's kernel ends the process where there is no such row.
        val isKnown = if (constant != null) numbers.isNotEmpty() else source != null
        if (!isKnown && name.startsWith("quantized_decomposed::")) {
            refuse("$name takes rows by numbers that are neither an input's nor a small constant's")
        }
    }

    private fun compare(declared: List<TensorSpec>, found: List<Int>, what: String) {
        val listed = found.map { values[it].shape to PTE_TYPES[values[it].dtype]?.first }
        if (listed != declared.map { it.shape to it.dtype }) refuse("it has other $what than the manifest declares")
    }
}
