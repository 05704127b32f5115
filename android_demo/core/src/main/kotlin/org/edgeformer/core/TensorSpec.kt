package org.edgeformer.core

/** Name, dtype ("float32", "int32", "uint8") and static shape of one input or output. */
data class TensorSpec(val name: String, val dtype: String, val shape: List<Int>) {
    /** How many values there are. */
    val size: Int get() = sizeOf(shape)
}
