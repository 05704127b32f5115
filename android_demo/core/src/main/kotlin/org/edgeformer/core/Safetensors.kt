package org.edgeformer.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val MAX_HEADER_BYTES = 16 shl 20

/** Reads files of tensors: eight bytes of length, a JSON header with the place of each tensor, then their bytes. */
internal object Safetensors {
    /**
     * The tensors of a file by name: float32, int32 and uint8, which is what bundles hold.
     *
     * @param where the file's name, for messages.
     * @throws BundleError it does not follow the format, or holds other types.
     */
    fun read(bytes: ByteBuffer, where: String): Map<String, Tensor> {
        val file = bytes.duplicate().order(ByteOrder.LITTLE_ENDIAN)
        val length = if (file.capacity() < 8) -1 else file.getLong(0)
        if (length !in 2..minOf(MAX_HEADER_BYTES.toLong(), file.capacity() - 8L)) {
            throw BundleError("$where: not a safetensors file: its header does not fit")
        }
        val header = ByteArray(length.toInt()) { file.get(8 + it) }
        val value = StrictJson.parse(header, where, MAX_HEADER_BYTES)
        val data = 8 + length.toInt()
        var used = 0L
        val found = LinkedHashMap<String, Tensor>()
        Fields.read(value, where) { fields ->
            if (fields.has("__metadata__")) fields.skip("__metadata__")
            for (name in fields.keys - "__metadata__") {
                val tensor = fields.obj(name) { read(it, file, data) }
                used += tensor.size * if (tensor is ByteTensor) 1L else 4L
                found[name] = tensor
            }
        }
        if (data + used != file.capacity().toLong()) throw BundleError("$where: its tensors do not fill the file")
        return found
    }

    private fun read(fields: Fields, file: ByteBuffer, data: Int): Tensor {
        val type = fields.choice("dtype", listOf("F32", "I32", "U8"))
        val shape = fields.ints("shape", 0..8, 0..Int.MAX_VALUE.toLong())
        val (start, end) = fields.ints("data_offsets", 2..2, 0..Int.MAX_VALUE.toLong())
        val size = shape.fold(1L) { product, side -> minOf(product * side, Int.MAX_VALUE.toLong()) }
        if (end - start.toLong() != size * (if (type == "U8") 1 else 4) || end > file.capacity() - data) {
            fields.fail("data_offsets", "they do not fit the shape $shape, or leave the file")
        }
        val at = data + start
        return when (type) {
            "F32" -> FloatTensor.of(FloatArray(size.toInt()) { file.getFloat(at + 4 * it) }, *shape.toIntArray())
            "I32" -> IntTensor.of(IntArray(size.toInt()) { file.getInt(at + 4 * it) }, *shape.toIntArray())
            else -> ByteTensor(shape, ByteArray(size.toInt()) { file.get(at + it) })
        }
    }
}
