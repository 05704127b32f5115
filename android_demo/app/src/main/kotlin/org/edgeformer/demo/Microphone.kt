package org.edgeformer.demo

import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import java.io.Closeable
import java.io.IOException

/** Mono sound from the microphone, as it arrives. Needs the permission to record. */
class Microphone(sampleRate: Int) : Closeable {
    /** A tenth of a second, in samples. */
    private val blockSamples = sampleRate / 10
    private val recorder: AudioRecord

    init {
        val smallestBytes = AudioRecord.getMinBufferSize(sampleRate, CHANNELS, ENCODING)
        if (smallestBytes <= 0) throw IOException("no microphone at $sampleRate Hz")
        // Two seconds: transcribing a window may take that long before the next read.
        val bufferBytes = maxOf(smallestBytes, 2 * sampleRate * Short.SIZE_BYTES)
        recorder =
            AudioRecord(MediaRecorder.AudioSource.VOICE_RECOGNITION, sampleRate, CHANNELS, ENCODING, bufferBytes)
        if (recorder.state != AudioRecord.STATE_INITIALIZED) {
            recorder.release()
            throw IOException("the microphone cannot be opened")
        }
    }

    /**
     * Record until [block] returns false. It is given a tenth of a second at a time, samples in -1..1, on this thread.
     *
     * @throws IOException the microphone is taken by another app, or fails.
     */
    fun record(block: (FloatArray) -> Boolean) {
        recorder.startRecording()
        if (recorder.recordingState != AudioRecord.RECORDSTATE_RECORDING) throw IOException("the microphone is taken")
        try {
            val samples = ShortArray(blockSamples)
            do {
                val count = recorder.read(samples, 0, samples.size)
                if (count < 0) throw IOException("the microphone failed with code $count")
            } while (block(FloatArray(count) { samples[it] / 32768f }))
        } finally {
            recorder.stop()
        }
    }

    override fun close() = recorder.release()

    private companion object {
        const val CHANNELS = AudioFormat.CHANNEL_IN_MONO
        const val ENCODING = AudioFormat.ENCODING_PCM_16BIT
    }
}
