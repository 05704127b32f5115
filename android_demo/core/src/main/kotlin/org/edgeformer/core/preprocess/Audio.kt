package org.edgeformer.core.preprocess

import org.edgeformer.core.InputError
import java.io.Closeable
import java.io.InputStream

/** Sample rates that are accepted, in Hz. */
private val RATES = 1_000..768_000
private const val MOST_CHANNELS = 64

/** Largest magnitude of a sample. Full scale is 1, but floats that hold the values of integers are often met. */
private const val LOUDEST = 4294967296f

/** Of the channels' mean power: where their mean has less, they cancel out, as from a microphone of reversed poles. */
private const val CANCELLED = 0.01

/** Frames that are decoded at a time; a frame is one sample of each channel. */
private const val BLOCK_FRAMES = 16384

/** Audio as a file or a decoder gives it, block by block. */
interface AudioSource : Closeable {
    /** Frames per second. */
    val sampleRate: Int
    val channels: Int

    /**
     * The next frames, at most `count`: their samples, channel by channel in each frame, from -1 to 1. Fewer only at
     * the end, where there are none.
     *
     * @throws InputError the audio is corrupted or cut short.
     */
    fun read(count: Int): FloatArray
}

/**
 * A recording as mono samples at one rate, in constant memory for any length. Not for several threads at once.
 *
 * Channels are averaged, but where they cancel out the loudest one is taken.
 *
 * @property sampleRate of what [read] gives, in Hz: the model's.
 * @throws InputError a rate below 1 kHz or above 768 kHz, or more than 64 channels.
 */
class AudioReader(private val source: AudioSource, val sampleRate: Int) : Closeable {
    private val resampler = if (source.sampleRate == sampleRate) null else Resampler(source.sampleRate, sampleRate)
    private var pending = FloatArray(0)
    private var ended = false
    private var taken = 0L
    private var channel: Int? = null

    init {
        val (rate, channels) = source.sampleRate to source.channels
        if (rate !in RATES) throw InputError("the audio has a sample rate of $rate Hz: expected 1000 to 768000")
        if (channels !in 1..MOST_CHANNELS) throw InputError("the audio has $channels channels: expected 1 to 64")
    }

    /**
     * The next samples (n); n is below `count` only at the end of the audio.
     *
     * @throws InputError the audio is corrupted or cut short, or holds NaN, infinity or absurd values.
     */
    fun read(count: Int): FloatArray {
        val blocks = arrayListOf(pending)
        var found = pending.size
        while (found < count && !ended) {
            val mono = mono(source.read(BLOCK_FRAMES))
            ended = mono.isEmpty()
            val block = resampler?.next(mono, ended) ?: mono
            blocks += block
            found += block.size
        }
        val all = joined(blocks, found)
        pending = all.copyOfRange(minOf(count, found), found)
        return all.copyOf(minOf(count, found))
    }

    override fun close() = source.close()

    private fun mono(block: FloatArray): FloatArray {
        val channels = source.channels
        val frames = block.size / channels
        var mono = block
        if (channels > 1) {
            mono = FloatArray(frames) { frame -> (0 until channels).sumOf { at(block, frame, it) }.div(channels).toFloat() }
            if (channel == null && frames > 0) channel = loudestIfCancelled(block, mono)
            channel?.let { only -> mono = FloatArray(frames) { block[it * channels + only] } }
        }
        // Written so that NaN, which compares as false, is refused too.
        val wrong = mono.indexOfFirst { !(it >= -LOUDEST && it <= LOUDEST) }
        if (wrong >= 0) {
            val place = taken + wrong
            throw InputError("the audio holds ${mono[wrong]} at sample $place: expected finite samples, from -1 to 1")
        }
        taken += frames
        return mono
    }

    private fun loudestIfCancelled(block: FloatArray, mean: FloatArray): Int? {
        val frames = mean.size
        val powers = DoubleArray(source.channels) { channel ->
            (0 until frames).sumOf { frame -> at(block, frame, channel).let { it * it } } / frames
        }
        val isCancelled = mean.sumOf { it.toDouble() * it } / frames < CANCELLED * powers.average()
        return if (isCancelled) powers.indices.maxBy { powers[it] } else null
    }

    private fun at(block: FloatArray, frame: Int, channel: Int) = block[frame * source.channels + channel].toDouble()
}

/**
 * A recording at `sampleRate` from a wav file's bytes; see [WavSource] for the kinds that are read.
 *
 * @throws InputError another kind of file.
 */
fun openWav(file: InputStream, sampleRate: Int): AudioReader {
    val source = try {
        WavSource(file)
    } catch (error: InputError) {
        file.close()
        throw error
    }
    return AudioReader(source, sampleRate)
}

private fun joined(blocks: List<FloatArray>, size: Int): FloatArray {
    val all = FloatArray(size)
    var end = 0
    for (block in blocks) {
        block.copyInto(all, end)
        end += block.size
    }
    return all
}
