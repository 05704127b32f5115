package org.edgeformer.core.preprocess

import org.edgeformer.core.FloatTensor

/** What each 8-bit value of each channel becomes, (3, 256): an image has no other values. Float32 throughout. */
internal fun normalisationTable(spec: ImagePreprocessing): Array<FloatArray> = Array(3) { channel ->
    val mean = spec.mean[channel].toFloat()
    val std = spec.std[channel].toFloat()
    FloatArray(256) { (it / 255f - mean) / std }
}

/** 8-bit values (3, height, width) to normalised pixels (1, 3, height, width). */
internal fun toInput(levels: ByteArray, table: Array<FloatArray>, spec: ImagePreprocessing): FloatTensor {
    val plane = spec.height * spec.width
    val pixels = FloatTensor.direct(listOf(1, 3, spec.height, spec.width))
    for (index in levels.indices) pixels.data.put(index, table[index / plane][levels[index].toInt() and 0xFF])
    return pixels
}
