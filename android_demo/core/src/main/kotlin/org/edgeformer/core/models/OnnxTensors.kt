package org.edgeformer.core.models

import org.edgeformer.core.models.Wire.FLOATS
import org.edgeformer.core.models.Wire.INT
import org.edgeformer.core.models.Wire.INTS
import org.edgeformer.core.models.Wire.PART
import org.edgeformer.core.shorten

// Fields of TensorProto.
private const val DIMS = 1
private const val DATA_TYPE = 2
private const val FLOAT_DATA = 4
private const val INT32_DATA = 5
private const val INT64_DATA = 7
private const val NAME = 8
private const val RAW_DATA = 9
private const val DOUBLE_DATA = 10
private const val UINT64_DATA = 11
private const val EXTERNAL_DATA = 13
private const val DATA_LOCATION = 14
private val TENSOR = mapOf(
    DIMS to INTS, DATA_TYPE to INT, FLOAT_DATA to FLOATS, INT32_DATA to INTS, INT64_DATA to INTS, NAME to PART,
    RAW_DATA to PART, DOUBLE_DATA to PART, UINT64_DATA to INTS, 12 to PART, EXTERNAL_DATA to PART, DATA_LOCATION to INT,
)
private val ENTRY = mapOf(1 to PART, 2 to PART)
private val DATA_FIELDS = listOf(FLOAT_DATA, INT32_DATA, INT64_DATA, RAW_DATA, DOUBLE_DATA, UINT64_DATA)
private val INTEGER_FIELDS = listOf(INT32_DATA, INT64_DATA, UINT64_DATA)
private val DIGITS = Regex("[0-9]{1,18}")

/** A type of numbers: their size, the field that holds those that are not raw, and the manifest's name. */
internal class OnnxType(val bits: Int, val field: Int, val name: String) {
    val isInteger: Boolean get() = bits >= 8 && !name.startsWith("float")
}

/** TensorProto.DataType: its number to what it is. */
internal val ONNX_TYPES = mapOf(
    1 to OnnxType(32, FLOAT_DATA, "float32"), 2 to OnnxType(8, INT32_DATA, "uint8"),
    3 to OnnxType(8, INT32_DATA, "int8"), 4 to OnnxType(16, INT32_DATA, "uint16"),
    5 to OnnxType(16, INT32_DATA, "int16"), 6 to OnnxType(32, INT32_DATA, "int32"),
    7 to OnnxType(64, INT64_DATA, "int64"), 9 to OnnxType(8, INT32_DATA, "bool"),
    10 to OnnxType(16, INT32_DATA, "float16"), 11 to OnnxType(64, DOUBLE_DATA, "float64"),
    12 to OnnxType(32, UINT64_DATA, "uint32"), 13 to OnnxType(64, UINT64_DATA, "uint64"),
    16 to OnnxType(16, INT32_DATA, "uint16"), 21 to OnnxType(4, INT32_DATA, "uint8"),
    22 to OnnxType(4, INT32_DATA, "int8"),
)

/** Tensors of an `.onnx` file: where their bytes are, and the few numbers that steer operators. */
internal class OnnxTensors(private val wire: Protobuf) {
    /**
     * A constant's name and value.
     *
     * @param sizes of each file that it may lie in, by name; null: it may not lie elsewhere.
     */
    fun read(piece: Piece, sizes: Map<String, Long>?): Pair<String, OnnxValue> {
        val message = wire.message(piece, TENSOR, "a tensor")
        val name = message.text(NAME)
        val what = "the constant ${shorten(name)}"
        val dtype = message.int(DATA_TYPE).toInt()
        val type = ONNX_TYPES[dtype] ?: refuse("$what has the type $dtype, which is no dense number")
        val shape = checkShape(message.ints(DIMS), what, computed = false)
        checkPlace(message, what, type, shape, sizes)
        val isSteering = !message.has(EXTERNAL_DATA) && elements(shape) <= MAX_STEERING
        return name to OnnxValue(shape, dtype, numbers = if (isSteering) ({ numbers(message, type) }) else null)
    }

    private fun checkPlace(message: Message, what: String, type: OnnxType, shape: Shape, sizes: Map<String, Long>?) {
        val fields = DATA_FIELDS.filter { message.has(it) }
        var needed = bytesOf(shape, type.bits)
        val location = message.int(DATA_LOCATION)
        if (location == 1L) {
            if (fields.isNotEmpty()) refuse("$what has data of its own and elsewhere")
            return checkElsewhere(message, what, needed, sizes ?: refuse("$what refers to another file"))
        }
        if (location != 0L || message.has(EXTERNAL_DATA)) {
            refuse("$what refers to another file, but does not say that it lies there")
        }
        if (fields.size > 1 || fields.any { it != RAW_DATA && it != type.field }) {
            refuse("$what has its numbers in a field of another type")
        }
        val field = fields.singleOrNull()
        if (field in INTEGER_FIELDS) needed = elements(shape)
        val found = when (field) {
            null -> 0L
            RAW_DATA -> (message.piece(RAW_DATA) ?: Piece(0, 0)).size.toLong()
            in INTEGER_FIELDS -> message.ints(field).size.toLong()
            else -> message.size(field)
        }
        if (found != needed) refuse("$what has $found bytes or numbers where its shape needs $needed")
    }

    private fun checkElsewhere(message: Message, what: String, needed: Long, sizes: Map<String, Long>) {
        val entries = HashMap<String, String>()
        for (each in message.pieces(EXTERNAL_DATA)) {
            val entry = wire.message(each, ENTRY, what)
            if (entries.put(entry.text(1), entry.text(2)) != null) refuse("$what states its ${shorten(entry.text(1))} twice")
        }
        if (entries.keys != setOf("location", "offset", "length")) {
            refuse("$what refers to another file by ${shorten(entries.keys)}: expected length, location and offset")
        }
        val location = entries.getValue("location")
        val size = sizes[location]
            ?: refuse("$what refers to ${shorten(location)}, which is no listed file of the model's own folder")
        val (offset, length) = listOf("offset", "length").map {
            val digits = entries.getValue(it)
            if (!DIGITS.matches(digits)) refuse("$what has the $it ${shorten(digits)}")
            digits.toLong()
        }
        checkRange(offset, length, size, "$what in $location")
        if (length != needed) refuse("$what has $length bytes where its shape needs $needed")
    }

    private fun numbers(message: Message, type: OnnxType): List<Long> {
        if (!type.isInteger) refuse("an operand that decides a shape is no integer")
        val raw = message.piece(RAW_DATA) ?: return message.ints(type.field)
        wire.spend(raw.size / (type.bits / 8), "a constant") // many operators may read one
        val mask = if (type.name.startsWith("u") && type.bits < 64) (1L shl type.bits) - 1 else -1L
        return List(raw.size / (type.bits / 8)) { wire.number(raw, it, type.bits / 8) and mask }
    }
}
