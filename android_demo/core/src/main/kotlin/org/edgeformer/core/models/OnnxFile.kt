package org.edgeformer.core.models

import org.edgeformer.core.ProgramSpec
import org.edgeformer.core.TensorSpec
import org.edgeformer.core.models.Wire.FLOAT
import org.edgeformer.core.models.Wire.FLOATS
import org.edgeformer.core.models.Wire.INT
import org.edgeformer.core.models.Wire.INTS
import org.edgeformer.core.models.Wire.PART
import org.edgeformer.core.shorten
import java.nio.ByteBuffer

// Messages of onnx.proto with the fields that a bundle's may have.
private val MODEL = parts(2, 3, 4, 6, 7, 8, 14) + mapOf(1 to INT, 5 to INT)
private val OPSET = mapOf(1 to PART, 2 to INT)
private val GRAPH = parts(1, 2, 5, 10, 11, 12, 13, 14, 16)
private val NODE = parts(1, 2, 3, 4, 5, 6, 7, 9)
private val ATTRIBUTE =
    parts(1, 4, 5, 9, 10, 13) + mapOf(2 to FLOAT, 3 to INT, 7 to FLOATS, 8 to INTS, 20 to INT)
private val VALUE = parts(1, 2, 3, 4)
private val TYPE = parts(1, 6)
private val TENSOR_TYPE = mapOf(1 to INT, 2 to PART)
private val SHAPE = parts(1)
private val DIMENSION = mapOf(1 to INT, 2 to PART, 3 to PART)

/** AttributeProto.AttributeType to its field: f, i, s, t, floats, ints, strings, tensors. */
private val ATTRIBUTE_FIELDS = mapOf(1 to 2, 2 to 3, 3 to 4, 4 to 5, 6 to 7, 7 to 8, 8 to 9, 9 to 10)
private val DOMAINS = setOf("", "ai.onnx", OWN_DOMAIN)
private const val OWN_DOMAIN = "com.microsoft"
private const val INT64 = 7
private val NOTHING = Piece(0, 0)

private fun parts(vararg numbers: Int): Known = numbers.associateWith { PART }

/**
 * Looks at an `.onnx` file before ONNX Runtime opens it: it would follow references out of the bundle.
 *
 * @param sizes the listed files of the model's folder, by their names in it.
 * @param programs those that the manifest says this file is.
 * @return how often each operator occurs, and the rows of the tables that inputs index.
 * @throws Broken says which rule of BUNDLE.md and where.
 */
internal fun checkOnnx(file: ByteBuffer, sizes: Map<String, Long>, programs: List<ProgramSpec>): Contents {
    val wire = Protobuf(file)
    val model = wire.message(wire.whole, MODEL, "the model")
    if (model.int(1) !in 3..13) refuse("it has the ir_version ${model.int(1)}: expected 3 to 13")
    model.pieces(8).forEach { checkDomain(wire.message(it, OPSET, "an opset").text(1)) }
    val graph = model.piece(7) ?: refuse("it has no graph: expected an ONNX model")
    val found = OnnxGraph(wire, wire.message(graph, GRAPH, "the graph"), sizes, programs)
    return Contents(found.counts, programs.associate { it.name to found.rows })
}

private fun checkDomain(name: String): String {
    if (name !in DOMAINS) refuse("it has operators of the domain ${shorten(name)}")
    return name
}

/** The values of a graph, made in the order of its nodes. */
private class OnnxGraph(
    private val wire: Protobuf,
    graph: Message,
    sizes: Map<String, Long>,
    programs: List<ProgramSpec>,
) {
    val counts = HashMap<String, Int>()
    val rows: Map<String, Int>
    private val trace: IndexTrace<String>
    private val values = HashMap<String, OnnxValue>()
    private val tensors = OnnxTensors(wire)

    /** The name of the one size that may be symbolic, if a value has it. */
    private var symbol: String? = null

    init {
        val inputs = graph.pieces(11).map(::declared)
        val outputs = graph.pieces(12).map(::declared)
        graph.pieces(13).forEach { declared(it) }
        val length = programs.maxOf { compared(it, inputs, outputs) }
        inputs.forEach { make(it.name, OnnxValue(checkShape(it.at(length).sizes(), "the input ${shorten(it.name)}"), it.dtype)) }
        trace = IndexTrace(inputs.map { it.name })
        graph.pieces(5).map { tensors.read(it, sizes) }.forEach { (name, value) -> make(name, value) }
        graph.pieces(1).forEach(::run)
        rows = trace.rows(inputs.associate { it.name to it.name })
        for (each in outputs) {
            if (values[each.name]?.shape != each.at(length)) {
                refuse("its output ${shorten(each.name)} is not made as it is declared")
            }
        }
    }

    private fun make(name: String, value: OnnxValue) {
        if (name.isEmpty() || values.put(name, value) != null) refuse("the value ${shorten(name)} is made twice")
    }

    private fun declared(piece: Piece): Declared {
        val message = wire.message(piece, VALUE, "a value")
        val what = "the value ${shorten(message.text(1))}"
        val outer = wire.message(message.piece(2) ?: NOTHING, TYPE, what).piece(1) ?: refuse("$what is no dense tensor")
        val type = wire.message(outer, TENSOR_TYPE, what)
        val dtype = type.int(1).toInt()
        if (dtype !in ONNX_TYPES) refuse("$what has the type $dtype, which is no dense number")
        val sizes = wire.message(type.piece(2) ?: NOTHING, SHAPE, what).pieces(1).map {
            size(wire.message(it, DIMENSION, what), what)
        }
        checkShape(sizes.filterNotNull(), what)
        return Declared(message.text(1), sizes.map { it?.toInt() }, dtype)
    }

    /** A number, or null for the one length of the file that is symbolic. */
    private fun size(dimension: Message, what: String): Long? {
        val name = dimension.text(2)
        if (dimension.has(1) && name.isEmpty()) return dimension.int(1)
        if (dimension.has(1) || name.isEmpty() || (symbol ?: name) != name) {
            refuse("$what has a size that is neither a number nor the file's one symbolic length")
        }
        symbol = name
        return null
    }

    private fun run(piece: Piece) {
        val node = wire.message(piece, NODE, "a node")
        val operator = node.text(4)
        val what = "the operator ${shorten(operator)}"
        val domain = checkDomain(node.text(7))
        val attributes = HashMap<String, Any?>()
        for (each in node.pieces(5)) {
            val (key, value) = attribute(each, what)
            if (key in attributes) refuse("$what has the attribute ${shorten(key)} twice")
            attributes[key] = value
        }
        counts[operator] = (counts[operator] ?: 0) + 1
        val outputs = node.texts(2)
        try {
            val found = results(operator, domain, node.texts(1), attributes, outputs)
            outputs.zip(found).forEach { (name, value) -> if (name.isNotEmpty()) make(name, value) }
        } catch (error: Broken) {
            refuse("$what number ${counts.values.sum()}: ${error.message}")
        }
    }

    private fun results(
        operator: String,
        domain: String,
        inputs: List<String>,
        attributes: Map<String, Any?>,
        outputs: List<String>,
    ): List<OnnxValue> {
        if (operator == "Constant" && domain != OWN_DOMAIN && inputs.isEmpty() && outputs.size == 1 && attributes.size == 1) {
            return attributes.map { (name, value) -> constant(name, value) }
        }
        if ((domain == OWN_DOMAIN) != (operator in OWN_OPERATORS)) refuse("it is none that a reader knows")
        val operands = inputs.map {
            if (it.isEmpty()) null else values[it] ?: refuse("it reads ${shorten(it)}, which nothing before it makes")
        }
        val call = OnnxCall(operands, attributes, outputs.size, symbol != null)
        val shapes = onnxShapes(operator, call) ?: refuse("it is none that a reader knows")
        if (outputs.size > shapes.size) refuse("it has ${outputs.size} outputs")
        if (operator in ONNX_MOVES) trace.move(inputs[0], outputs)
        if (operator in ONNX_GATHERS) trace.index(inputs[1], indexedRows(operator, call))
        if (operator == "Shape") {
            val sizes = sizesOf(call)
            return listOf(OnnxValue(listOf(sizes.size), INT64, varies = true) { sizes })
        }
        return shapes.take(outputs.size).map { OnnxValue(checkShape(it, "its result")) }
    }

    private fun attribute(piece: Piece, what: String): Pair<String, Any?> {
        val message = wire.message(piece, ATTRIBUTE, "an attribute of $what")
        val name = message.text(1)
        val kind = message.int(20).toInt()
        val field = ATTRIBUTE_FIELDS[kind]
        if (field == null || ATTRIBUTE_FIELDS.values.any { it != field && message.has(it) }) {
            refuse("$what has the attribute ${shorten(name)} of the kind $kind: expected numbers, texts or tensors")
        }
        return name to when (field) {
            3 -> message.int(3)
            4 -> message.text(4)
            8 -> message.ints(8)
            5, 10 -> message.pieces(field).map { tensors.read(it, null).second }.singleOrNull().takeIf { field == 5 }
            else -> null
        }
    }
}

private fun constant(name: String, value: Any?): OnnxValue = when {
    name == "value" && value is OnnxValue -> value
    name == "value_int" && value is Long -> OnnxValue(emptyList(), INT64) { listOf(value) }
    name == "value_ints" && value is List<*> -> OnnxValue(listOf(value.size), INT64) { value.map { it as Long } }
    name == "value_float" -> OnnxValue(emptyList(), 1)
    else -> refuse("it holds the attribute ${shorten(name)}")
}

/** An input or output of the graph; null among its sizes: the length, which is symbolic. */
private class Declared(val name: String, val sizes: List<Int?>, val dtype: Int) {
    /** Its shape for inputs of that length. */
    fun at(length: Int): Shape = sizes.map { it ?: length }
}

/**
 * The length that a program gives a graph's symbolic size; 1 where the graph has none.
 *
 * @throws Broken the graph has other inputs or outputs than the manifest states of the program.
 */
private fun compared(program: ProgramSpec, inputs: List<Declared>, outputs: List<Declared>): Int {
    val stated = program.inputs.associate { it.name to it.shape }
    val length = inputs.firstNotNullOfOrNull { stated[it.name]?.getOrNull(it.sizes.indexOf(null)) } ?: 1
    compare(program.inputs, inputs, length, "inputs")
    compare(program.outputs, outputs, length, "outputs")
    return length
}

private fun compare(declared: List<TensorSpec>, found: List<Declared>, length: Int, what: String) {
    val listed = found.map { TensorSpec(it.name, ONNX_TYPES.getValue(it.dtype).name, it.at(length)) }
    if (listed.size != declared.size || listed.toSet() != declared.toSet()) {
        refuse("it has the $what ${shorten(listed)}, the manifest declares others")
    }
}
