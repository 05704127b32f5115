package org.edgeformer.core.preprocess

import org.edgeformer.core.InputError
import java.io.ByteArrayInputStream
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

private const val PCM = 1
private const val FLOAT = 3
private const val EXTENSIBLE = 0xFFFE

/** What programs that write a wav into a pipe put where its size belongs. */
private val UNKNOWN_SIZES = setOf(0xFFFFFFFFL, 0x7FFFFFFFL, 0x7FFFF000L)

/** More than what is known to follow the samples of a wav that has none, such as a title. */
private const val UNFINISHED_BYTES = 4096

private const val LARGEST_FORMAT_BYTES = 4096L

/**
 * The samples of a wav file: 8 to 32 bits (PCM), or 32 or 64 bits (float), plain or extensible, at any rate.
 *
 * @property bits of one sample.
 * @property isFloat else they are integers.
 * @throws InputError not a wav file, another coding, or one that its recorder did not finish.
 */
class WavSource(private val file: InputStream) : AudioSource {
    override val sampleRate: Int
    override val channels: Int
    val bits: Int
    val isFloat: Boolean

    /** Bytes of samples that are still to come; null where they go on to the end of the file. */
    private var left: Long?

    init {
        val head = bytes(12)
        if (name(head, 0) != "RIFF" || name(head, 8) != "WAVE") throw InputError("the audio is not a wav file")
        var format: ByteBuffer? = null
        while (true) {
            val chunk = bytes(8)
            val size = chunk.getInt(4).toLong() and 0xFFFFFFFFL
            if (name(chunk, 0) == "data") {
                left = size.takeIf { it !in UNKNOWN_SIZES }
                break
            }
            if (name(chunk, 0) == "fmt ") {
                if (size !in 16..LARGEST_FORMAT_BYTES) throw InputError("the wav file's format is corrupted")
                format = bytes(size.toInt())
                skip(size % 2)
            } else {
                skip(size + size % 2)
            }
        }
        val fields = format ?: throw InputError("the wav file states no format")
        val coding = unsigned(fields, 0)
        channels = unsigned(fields, 2)
        sampleRate = fields.getInt(4)
        bits = unsigned(fields, 14)
        val kind = if (coding == EXTENSIBLE && fields.limit() >= 26) unsigned(fields, 24) else coding
        isFloat = kind == FLOAT
        val isKnown = kind == PCM && bits in listOf(8, 16, 24, 32) || isFloat && bits in listOf(32, 64)
        if (!isKnown) throw InputError("the wav file has coding $kind with $bits bits: expected PCM or float")
        if (unsigned(fields, 12) != channels * bits / 8) throw InputError("the wav file's format is corrupted")
        if (left == 0L && file.upTo(UNFINISHED_BYTES + 1).size > UNFINISHED_BYTES) {
            throw InputError("the wav file states that it has no samples, but bytes follow: its recorder was stopped")
        }
    }

    override fun read(count: Int): FloatArray {
        val frameBytes = channels * bits / 8
        val wanted = minOf(count.toLong() * frameBytes, left?.let { it - it % frameBytes } ?: Long.MAX_VALUE).toInt()
        val data = file.upTo(wanted)
        left?.let {
            if (data.size < wanted) throw InputError("the wav file was cut short: ${it - data.size} bytes are missing")
            left = it - wanted
        }
        val raw = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
        return FloatArray(data.size / frameBytes * channels) { sample(raw, it) }
    }

    override fun close() = file.close()

    private fun sample(raw: ByteBuffer, index: Int): Float = when {
        isFloat && bits == 32 -> raw.getFloat(4 * index)
        isFloat -> raw.getDouble(8 * index).toFloat()
        bits == 8 -> ((raw.get(index).toInt() and 0xFF) - 128) / 128f
        bits == 16 -> raw.getShort(2 * index) / 32768f
        bits == 24 -> (unsigned(raw, 3 * index) or (raw.get(3 * index + 2).toInt() shl 16)) / 8388608f
        else -> (raw.getInt(4 * index) / 2147483648.0).toFloat()
    }

    private fun bytes(count: Int): ByteBuffer {
        val data = file.upTo(count)
        if (data.size < count) throw InputError("the wav file was cut short: it has no samples")
        return ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
    }

    private fun skip(count: Long) {
        var left = count
        while (left > 0) left -= bytes(minOf(left, 65536L).toInt()).limit()
    }
}

/**
 * The samples (N) of a wav file of one channel and 16 bits at `sampleRate`, from -1 to 1: what recorded vectors hold.
 *
 * @throws InputError another kind of file, or one that is cut short.
 */
fun readRecorded(data: ByteArray, sampleRate: Int): FloatArray {
    val wav = WavSource(ByteArrayInputStream(data))
    if (wav.channels != 1 || wav.bits != 16 || wav.sampleRate != sampleRate) {
        throw InputError("expected a wav file of one channel, 16 bits and $sampleRate Hz")
    }
    return wav.read(data.size)
}

/** The next bytes, fewer only at the end; `readNBytes` is not on all Android versions. */
private fun InputStream.upTo(count: Int): ByteArray {
    val data = ByteArray(count)
    var end = 0
    while (end < count) {
        val found = read(data, end, count - end)
        if (found < 0) break
        end += found
    }
    return if (end == count) data else data.copyOf(end)
}

private fun name(data: ByteBuffer, at: Int) = String(data.array(), at, 4, Charsets.ISO_8859_1)

private fun unsigned(data: ByteBuffer, at: Int) = data.getShort(at).toInt() and 0xFFFF
