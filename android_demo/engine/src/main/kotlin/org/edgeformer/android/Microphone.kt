package org.edgeformer.android

import android.media.AudioFormat
import android.media.AudioRecord
import android.media.MediaRecorder
import java.io.Closeable
import java.util.concurrent.LinkedBlockingQueue
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import org.edgeformer.core.InputError

/**
 * Mono audio from the microphone, recorded by a thread of its own until [stop]: none is lost while a model works.
 *
 * Needs the permission to record.
 *
 * @throws InputError there is no microphone, or another app has it.
 */
class Microphone(sampleRate: Int) : Closeable {
    private val blockSamples = sampleRate / BLOCKS_PER_SECOND
    private val recorder = open(sampleRate)
    private val blocks = LinkedBlockingQueue<FloatArray>()
    private val thread = Thread(::record, "microphone")

    @Volatile
    private var recording = true

    init {
        recorder.startRecording()
        if (recorder.recordingState != AudioRecord.RECORDSTATE_RECORDING) {
            recorder.release()
            throw InputError("another app has the microphone: end that app's recording")
        }
        thread.start()
    }

    /**
     * All audio that has come since the last call, at least a tenth of a second of it, samples in -1..1; waits for that.
     * Null behind the end. Who comes late gets it at once, and makes one guess at it, not one for each second.
     */
    fun next(): FloatArray? {
        val waiting = arrayListOf(blocks.take())
        while (waiting.last() !== END) waiting += blocks.poll() ?: break
        if (waiting.last() === END) {
            // For the next call, which has nothing else to wait for.
            blocks += waiting.removeAt(waiting.lastIndex)
            if (waiting.isEmpty()) return null
        }
        val samples = FloatArray(waiting.sumOf { it.size })
        var filled = 0
        for (block in waiting) {
            block.copyInto(samples, filled)
            filled += block.size
        }
        return samples
    }

    /** The audio for `Model.stream`, until [stop]; the microphone is closed behind it. */
    fun blocks(): Flow<FloatArray> = flow { use { while (true) emit(next() ?: break) } }.flowOn(Dispatchers.IO)

    /** Ends the audio; what was transcribed before can still be taken. From any thread. */
    fun stop() {
        recording = false
    }

    override fun close() {
        stop()
        thread.join()
        recorder.release()
    }

    private fun record() {
        val samples = ShortArray(blockSamples)
        while (recording) {
            val count = recorder.read(samples, 0, samples.size)
            if (count < 0) break
            blocks += FloatArray(count) { samples[it] / 32768f }
        }
        recorder.stop()
        blocks += END
    }

    private companion object {
        const val BLOCKS_PER_SECOND = 10
        const val CHANNELS = AudioFormat.CHANNEL_IN_MONO
        const val ENCODING = AudioFormat.ENCODING_PCM_16BIT
        val END = FloatArray(0)

        fun open(sampleRate: Int): AudioRecord {
            val smallest = AudioRecord.getMinBufferSize(sampleRate, CHANNELS, ENCODING)
            if (smallest <= 0) throw InputError("expected a microphone that records at $sampleRate Hz: this device has none")
            // Half a second: the thread may be kept waiting.
            val bytes = maxOf(smallest, sampleRate * Short.SIZE_BYTES / 2)
            val source = MediaRecorder.AudioSource.VOICE_RECOGNITION
            val recorder = AudioRecord(source, sampleRate, CHANNELS, ENCODING, bytes)
            if (recorder.state == AudioRecord.STATE_INITIALIZED) return recorder
            recorder.release()
            throw InputError("the microphone cannot be opened: does the app have the permission to record?")
        }
    }
}
