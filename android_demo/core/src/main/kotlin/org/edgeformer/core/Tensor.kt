package org.edgeformer.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.IntBuffer

/**
 * A dense, row-major array.
 *
 * Values lie in buffers from index 0 on, so that an engine can read them where they are, best in direct memory
 * (`FloatTensor.direct`). Use absolute indices or `duplicate()`: positions belong to nobody.
 */
sealed class Tensor {
    abstract val shape: List<Int>

    /** As in a manifest: "float32", "int32" or "uint8". */
    abstract val dtype: String

    /** How many values there are. */
    val size: Int get() = sizeOf(shape)
}

/** A float32 array. */
class FloatTensor(override val shape: List<Int>, val data: FloatBuffer) : Tensor() {
    init {
        requireSize(data.capacity(), shape)
    }

    override val dtype: String get() = "float32"

    /** A copy of the values. */
    fun toArray(): FloatArray = FloatArray(size).also { data.duplicate().apply { toStart(this) }.get(it) }

    companion object {
        /** The array itself as a tensor, not a copy. */
        fun of(values: FloatArray, vararg shape: Int) = FloatTensor(shape.toList(), FloatBuffer.wrap(values))

        /** Zeros in memory that native code reads without a copy. */
        fun direct(shape: List<Int>) = FloatTensor(shape, directBytes(shape).asFloatBuffer())
    }
}

/** An int32 array. */
class IntTensor(override val shape: List<Int>, val data: IntBuffer) : Tensor() {
    init {
        requireSize(data.capacity(), shape)
    }

    override val dtype: String get() = "int32"

    /** A copy of the values. */
    fun toArray(): IntArray = IntArray(size).also { data.duplicate().apply { toStart(this) }.get(it) }

    companion object {
        /** The array itself as a tensor, not a copy. */
        fun of(values: IntArray, vararg shape: Int) = IntTensor(shape.toList(), IntBuffer.wrap(values))

        /** Zeros in memory that native code reads without a copy. */
        fun direct(shape: List<Int>) = IntTensor(shape, directBytes(shape).asIntBuffer())
    }
}

/** A uint8 array: 8-bit pixels in recorded vectors. No program takes one. */
class ByteTensor(override val shape: List<Int>, val data: ByteArray) : Tensor() {
    init {
        requireSize(data.size, shape)
    }

    override val dtype: String get() = "uint8"
}

/** `Buffer.clear` itself: its overrides of newer platforms are missing on older ones. */
internal fun toStart(buffer: Buffer) {
    buffer.clear()
}

/**
 * How many values a shape holds; not by `Math.multiplyExact`, which the android.jar that core is compiled with lacks.
 */
internal fun sizeOf(shape: List<Int>): Int = shape.fold(1) { size, length ->
    val product = size.toLong() * length
    if (product > Int.MAX_VALUE) throw ArithmeticException("a tensor of shape $shape is too large")
    product.toInt()
}

/** Memory for as many values of 4 bytes as a shape holds. */
private fun directBytes(shape: List<Int>): ByteBuffer =
    ByteBuffer.allocateDirect(4 * sizeOf(shape)).order(ByteOrder.nativeOrder())

private fun requireSize(found: Int, shape: List<Int>) =
    require(found == sizeOf(shape)) { "$found values do not make a tensor of shape $shape" }
