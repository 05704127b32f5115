package org.edgeformer.android

import android.content.Context
import android.media.AudioFormat
import android.media.MediaCodec
import android.media.MediaExtractor
import android.media.MediaFormat
import android.net.Uri
import org.edgeformer.core.InputError
import org.edgeformer.core.preprocess.AudioReader
import org.edgeformer.core.preprocess.AudioSource
import org.edgeformer.core.preprocess.openWav
import java.io.BufferedInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A file's audio at a model's rate: a wav by the library's own reader, which is the same everywhere, all else by the
 * system's decoders (m4a, mp3, ogg, flac and others, by phone).
 *
 * @throws InputError it cannot be read, or has no audio that this phone decodes.
 */
fun openRecording(context: Context, uri: Uri, sampleRate: Int): AudioReader = try {
    val file = BufferedInputStream(context.contentResolver.openInputStream(uri) ?: throw IOException("no stream"))
    file.mark(WAV_MARK.size)
    val isWav = WAV_MARK.all { it == file.read() }
    file.reset()
    if (isWav) openWav(file, sampleRate)
    else file.close().let { AudioReader(MediaSource(context, uri), sampleRate) }
} catch (error: IOException) {
    throw unreadable(uri, error)
} catch (error: IllegalArgumentException) { // the system's word for a file of another kind, and for a codec that it lacks
    throw unreadable(uri, error)
}

private fun unreadable(uri: Uri, error: Exception) =
    InputError("$uri: expected a recording that this phone decodes: ${error.message}", error)

private val WAV_MARK = "RIFF".map { it.code }

/** `MediaFormat.KEY_PCM_ENCODING`, which is in every Android that runs this, and not in the stubs that it is built with. */
private const val PCM_ENCODING = "pcm-encoding"
private const val WAIT_US = 10_000L
private const val BYTES_16 = 2
private const val BYTES_FLOAT = 4

/** The first audio track of a file, through the system's extractor and decoder. */
private class MediaSource(context: Context, uri: Uri) : AudioSource {
    private val extractor = MediaExtractor()
    private val codec: MediaCodec
    private val info = MediaCodec.BufferInfo()
    private var format: MediaFormat
    private var pending = FloatArray(0)
    private var allFed = false
    private var ended = false

    init {
        try {
            extractor.setDataSource(context, uri, null)
            val formats = List(extractor.trackCount) { extractor.getTrackFormat(it) }
            val track = formats.indexOfFirst { it.getString(MediaFormat.KEY_MIME).orEmpty().startsWith("audio/") }
            if (track < 0) throw IOException("no audio")
            extractor.selectTrack(track)
            codec = MediaCodec.createDecoderByType(formats[track].getString(MediaFormat.KEY_MIME)!!)
            codec.configure(formats[track], null, null, 0)
            codec.start()
        } catch (error: IOException) {
            extractor.release()
            throw error
        }
        // What comes out may have another rate than what the file states (HE-AAC), so the first block decides.
        format = codec.outputFormat
        pending = decoded()
    }

    override val sampleRate: Int get() = format.getInteger(MediaFormat.KEY_SAMPLE_RATE)
    override val channels: Int get() = format.getInteger(MediaFormat.KEY_CHANNEL_COUNT)

    override fun read(count: Int): FloatArray {
        if (pending.isEmpty()) pending = decoded()
        val taken = pending.copyOf(minOf(count * channels, pending.size))
        pending = pending.copyOfRange(taken.size, pending.size)
        return taken
    }

    override fun close() {
        codec.release()
        extractor.release()
    }

    /** The next block that the decoder gives; empty at the end. */
    private fun decoded(): FloatArray {
        try {
            while (!ended) {
                feed()
                val index = codec.dequeueOutputBuffer(info, WAIT_US)
                if (index == MediaCodec.INFO_OUTPUT_FORMAT_CHANGED) format = codec.outputFormat
                if (index < 0) continue
                val block = samples(codec.getOutputBuffer(index)!!)
                codec.releaseOutputBuffer(index, false)
                ended = info.flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM != 0
                if (block.isNotEmpty()) return block
            }
        } catch (error: IllegalStateException) { // MediaCodec.CodecException is one
            throw InputError("the audio is corrupted or cut short: the phone's decoder stopped", error)
        }
        return FloatArray(0)
    }

    private fun feed() {
        if (allFed) return
        val index = codec.dequeueInputBuffer(WAIT_US)
        if (index < 0) return
        val size = extractor.readSampleData(codec.getInputBuffer(index)!!, 0)
        allFed = size < 0
        val flags = if (allFed) MediaCodec.BUFFER_FLAG_END_OF_STREAM else 0
        codec.queueInputBuffer(index, 0, maxOf(size, 0), maxOf(extractor.sampleTime, 0), flags)
        extractor.advance()
    }

    private fun samples(buffer: ByteBuffer): FloatArray {
        buffer.position(info.offset).limit(info.offset + info.size)
        val raw = buffer.slice().order(ByteOrder.nativeOrder())
        val isFloat = format.containsKey(PCM_ENCODING) && format.getInteger(PCM_ENCODING) == AudioFormat.ENCODING_PCM_FLOAT
        return if (isFloat) FloatArray(info.size / BYTES_FLOAT) { raw.getFloat(BYTES_FLOAT * it) }
        else FloatArray(info.size / BYTES_16) { raw.getShort(BYTES_16 * it) / 32768f }
    }
}
