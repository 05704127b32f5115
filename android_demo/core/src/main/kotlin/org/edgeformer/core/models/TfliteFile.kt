package org.edgeformer.core.models

import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.shorten
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** TensorType: its number to its size in bits and the manifest's name; what is not here is a text, a resource, ... */
private val TYPES = mapOf(
    0 to (32 to "float32"), 1 to (16 to "float16"), 2 to (32 to "int32"), 3 to (8 to "uint8"), 4 to (64 to "int64"),
    6 to (8 to "bool"), 7 to (16 to "int16"), 9 to (8 to "int8"), 10 to (64 to "float64"), 15 to (32 to "uint32"),
    16 to (16 to "uint16"), 17 to (4 to ""), 19 to (2 to ""), 20 to (4 to ""),
)
private val STEERING_TYPES = setOf("int32", "int64", "int16", "int8", "uint8")

/**
 * Looks at a `.tflite` before LiteRT opens it: it believes shapes, indices and offsets, and follows calls for ever.
 *
 * @param programs those that the manifest says this file has.
 * @return how often each operator occurs, and the rows of the tables that inputs index.
 * @throws Broken says which rule of BUNDLE.md and where.
 */
internal fun checkTflite(file: ByteBuffer, programs: List<ProgramSpec>): Contents {
    val steps = Steps()
    val model = FlatBuffer(file, 0, file.capacity(), steps).root("TFL3", TFLITE)
    if (model.has(8) || model.has(9)) refuse("it refers to buffers in other files")
    val places = model.tables(4).mapIndexed { number, table -> bufferPlace(file, table, number) }
    val reader = TensorReader(file, places, steps)
    val operators = model.tables(1).map(::operatorOf)
    val counts = HashMap<String, Int>()
    val graphs = model.tables(2).map { TfliteGraph(reader, operators, it, counts) }
    return Contents(counts, checkSignatures(model.tables(7), graphs, programs))
}

/** An operator's name and options. Codes above 126 live in the second field only; older ones may live in the first. */
private fun operatorOf(table: FlatTable): Pair<String, Int> {
    val code = maxOf(table.byte(0).toByte().toInt(), table.int(3))
    val known = TFLITE_OPERATORS[code]
    if (known == null || table.has(1)) refuse("it has the operator number $code, which is none that a reader knows")
    return known
}

/** Where a buffer lies in the file. */
private fun bufferPlace(file: ByteBuffer, table: FlatTable, number: Int): Piece {
    val inside = table.bytes(0)
    val (offset, size) = table.long(1) to table.long(2)
    if (inside != null && inside.size > 0) {
        if (offset !in 0..1 || size !in 0..1) refuse("buffer $number lies inside and behind the flatbuffer")
        return inside
    }
    if (offset in 0..1) return Piece(0, 0)
    checkRange(offset, size, file.capacity().toLong(), "buffer $number")
    return Piece(offset.toInt(), (offset + size).toInt())
}

/** Reads the tensors of one file. */
private class TensorReader(file: ByteBuffer, private val buffers: List<Piece>, private val steps: Steps) {
    private val bytes = file.duplicate().order(ByteOrder.LITTLE_ENDIAN)

    fun read(table: FlatTable, number: Int): TfliteTensor {
        val what = "tensor $number"
        val sizes = table.ints(0)
        val signature = table.ints(7)
        if (signature.isNotEmpty() && signature != sizes) refuse("$what has a shape that is not static: $signature")
        if (table.has(6)) refuse("$what is sparse")
        if (table.byte(5) != 0 || table.has(9) || table.uint(10) != 0L) {
            refuse("$what is a variable, or lies in another file")
        }
        val dtype = table.byte(1)
        val (bits, name) = TYPES[dtype] ?: refuse("$what has the type $dtype, which is no dense number")
        val buffer = table.uint(2)
        val place = buffers.getOrNull(minOf(buffer, MAX_SIZE.toLong()).toInt())
            ?: refuse("$what has the buffer $buffer of ${buffers.size}")
        val shape = checkShape(sizes.map { it.toLong() }, what, computed = place.size == 0)
        table.table(4)?.let { checkQuantization(it, shape, what) }
        val needed = bytesOf(shape, bits)
        if (place.size > 0 && place.size.toLong() != needed) {
            refuse("$what has ${place.size} bytes where its shape needs $needed")
        }
        val isSteering = place.size > 0 && name in STEERING_TYPES && elements(shape) <= MAX_STEERING
        return TfliteTensor(shape, dtype, place.size > 0, if (isSteering) ({ numbers(place, bits, name) }) else null)
    }

    private fun numbers(place: Piece, bits: Int, name: String): List<Long> {
        steps.spend(place.size / (bits / 8)) // many operators may read one
        return when (bits) {
            8 -> (place.begin until place.end).map { bytes.get(it).toLong() and (if (name == "uint8") 0xFF else -1) }
            16 -> (place.begin until place.end step 2).map { bytes.getShort(it).toLong() }
            32 -> (place.begin until place.end step 4).map { bytes.getInt(it).toLong() }
            else -> (place.begin until place.end step 8).map { bytes.getLong(it) }
        }
    }

    private fun checkQuantization(table: FlatTable, shape: Shape, what: String) {
        val (scales, zeros, axis) = Triple(table.count(2, 4), table.count(3, 8), table.int(6))
        if (scales > 1 && shape.getOrNull(axis) != scales) refuse("$what has $scales scales along the axis $axis of $shape")
        if (zeros !in listOf(0, 1, scales)) refuse("$what has $zeros zero points for $scales scales")
        if (table.has(5) && table.byte(4) != BLOCKWISE) {
            refuse("$what has details of its quantization that no reader knows")
        }
    }
}

/** Refuses blocks whose scales are not there. */
private fun checkBlockwise(table: FlatTable, tensors: List<TfliteTensor>, shape: Shape, what: String) {
    val blocks = table.table(4)?.table(5) ?: return
    val (scales, zeros, size) = Triple(blocks.int(0), blocks.int(1), blocks.int(2))
    if (scales !in tensors.indices || zeros !in -1 until tensors.size || size < 1) {
        refuse("$what has the scales $scales and zero points $zeros for blocks of $size")
    }
    val count = elements(tensors[scales].shape)
    if (count > MAX_SIZE || count * size != elements(shape)) {
        refuse("$what has scales of ${tensors[scales].shape} for blocks of $size")
    }
}

/** A subgraph whose operators run in order on what is there. */
private class TfliteGraph(
    reader: TensorReader,
    private val known: List<Pair<String, Int>>,
    table: FlatTable,
    private val counts: HashMap<String, Int>,
) {
    val tensors: List<TfliteTensor>
    val inputs: List<Int>
    val outputs: List<Int>
    val trace: IndexTrace<Int>
    private val made = HashSet<Int>()

    init {
        val tables = table.tables(0)
        tensors = tables.mapIndexed { number, each -> reader.read(each, number) }
        tables.forEachIndexed { number, each -> checkBlockwise(each, tensors, tensors[number].shape, "tensor $number") }
        inputs = table.ints(1).map(::index)
        outputs = table.ints(2).map(::index)
        tensors.indices.filterTo(made) { tensors[it].isConstant }
        if (inputs.any { !made.add(it) }) refuse("an input of a graph is a constant, or occurs twice")
        trace = IndexTrace(inputs)
        table.tables(3).forEachIndexed { number, each -> run(each, number) }
        if (!made.containsAll(outputs)) refuse("an output of a graph is made by none of its operators")
    }

    private fun index(number: Int): Int {
        if (number !in tensors.indices) refuse("there is no tensor $number among ${tensors.size}")
        return number
    }

    private fun run(table: FlatTable, number: Int) {
        val code = table.uint(0)
        val (name, options) = known.getOrNull(minOf(code, MAX_SIZE.toLong()).toInt())
            ?: refuse("an operator has the code $code of ${known.size}")
        counts[name] = (counts[name] ?: 0) + 1
        try {
            run(name, options, table)
        } catch (error: Broken) {
            refuse("operator ${number + 1}, $name: ${error.message}")
        }
    }

    private fun run(name: String, options: Int, table: FlatTable) {
        if (table.has(5) || table.long(9) !in 0..1 || table.numbers(7, 1).any { it != 0L } || table.has(8)) {
            refuse("it has custom options, variables or intermediates")
        }
        val kind = table.byte(3)
        if (kind != 0 && kind != options) refuse("it has the options of another operator, $kind")
        val operands = table.ints(1).map { if (it == -1) null else tensors[readable(it)] }
        val results = table.ints(2).map(::index)
        val call = TfliteCall(operands, if (kind == 0) null else table.table(4))
        val shapes = tfliteShapes(name, call) ?: refuse("it is none that a reader knows")
        if (shapes != results.map { tensors[it].shape.sizes() }) {
            refuse("it makes ${shorten(shapes)} where the file declares ${shorten(results.map { tensors[it].shape })}")
        }
        if (results.any { !made.add(it) }) refuse("it writes what is made already")
        follow(name, call, table.ints(1), results)
    }

    /** Where the numbers of inputs go. */
    private fun follow(name: String, call: TfliteCall, operands: List<Int>, results: List<Int>) {
        if (name in TFLITE_MOVES) trace.move(operands[0], results)
        val place = TFLITE_INDICES[name] ?: return
        trace.index(operands[place], indexedRows(name, call, place))
    }

    private fun readable(number: Int): Int {
        if (index(number) !in made) refuse("it reads the tensor $number, which nothing before it makes")
        return number
    }
}

/** The rows of the tables that the programs' inputs index. */
private fun checkSignatures(signatures: List<FlatTable>, graphs: List<TfliteGraph>, programs: List<ProgramSpec>): Rows {
    val numbers = signatures.map { minOf(it.uint(4), MAX_SIZE.toLong()).toInt() }
    if (numbers.sorted() != graphs.indices.toList()) {
        refuse("its signatures run the graphs ${shorten(numbers)}: expected each of ${graphs.size} once")
    }
    val byKey = signatures.zip(numbers).associateBy { (signature, _) -> signature.text(2) }
    if (byKey.size != signatures.size) refuse("two signatures have the same key")
    for ((key, pair) in byKey) {
        val (signature, number) = pair
        for ((field, own) in listOf(0 to graphs[number].inputs, 1 to graphs[number].outputs)) {
            if (signature.tables(field).map { it.uint(1) }.sorted() != own.map { it.toLong() }.sorted()) {
                refuse("the signature ${shorten(key)} names other tensors than its graph has")
            }
        }
    }
    return programs.associate { program ->
        val (signature, number) = byKey[program.entry] ?: refuse("it has no signature ${shorten(program.entry)}")
        compare(signature.tables(0), graphs[number], program.inputs, program.name)
        compare(signature.tables(1), graphs[number], program.outputs, program.name)
        val names = signature.tables(0).associate { it.int(1) to it.text(0) }
        program.name to graphs[number].trace.rows(names)
    }
}

private fun compare(tables: List<FlatTable>, graph: TfliteGraph, declared: List<TensorSpec>, name: String) {
    val found = tables.map { table ->
        val tensor = graph.tensors[table.int(1)]
        TensorSpec(table.text(0), TYPES.getValue(tensor.dtype).second, tensor.shape)
    }
    if (found.size != declared.size || found.toSet() != declared.toSet()) {
        refuse("the signature of $name has other tensors than the manifest declares")
    }
}
