package org.edgeformer.core.preprocess

import org.edgeformer.core.InputError
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val FORMAT_CHUNK = "fmt "
private const val DATA_CHUNK = "data"

/**
 * The samples (N) of a WAV file of one channel and 16 bits at `sampleRate`, from -1 to 1: what recorded vectors hold.
 * An app's own audio comes from the microphone at the model's rate.
 *
 * @throws InputError another kind of file, or one that is cut short.
 */
fun readWav(data: ByteArray, sampleRate: Int): FloatArray {
    val file = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
    if (data.size < 12 || name(data, 0) != "RIFF" || name(data, 8) != "WAVE") throw InputError("expected a WAV file")
    var next = 12
    var isUsable = false
    while (next + 8 <= data.size) {
        val size = file.getInt(next + 4).toLong() and 0xFFFFFFFFL
        val content = next + 8
        if (content + size > data.size) throw InputError("the audio was cut short")
        when (name(data, next)) {
            FORMAT_CHUNK -> isUsable = size >= 16 && isMono16(file, content, sampleRate)
            DATA_CHUNK -> {
                if (!isUsable) throw InputError("expected a WAV file of one channel, 16 bits and $sampleRate Hz")
                return FloatArray((size / 2).toInt()) { file.getShort(content + 2 * it) / 32768f }
            }
        }
        next = (content + size + size % 2).toInt()
    }
    throw InputError("the audio has no samples")
}

private fun isMono16(file: ByteBuffer, at: Int, sampleRate: Int): Boolean {
    val (format, channels, bits) = listOf(0, 2, 14).map { file.getShort(at + it).toInt() }
    return format == 1 && channels == 1 && bits == 16 && file.getInt(at + 4) == sampleRate
}

private fun name(data: ByteArray, at: Int) = String(data, at, 4, Charsets.ISO_8859_1)
