package org.edgeformer.core.pipelines

import java.io.Closeable
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Transcription
import org.edgeformer.core.decoding.LogitRules
import org.edgeformer.core.decoding.Search
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.decoding.buildPrompt
import org.edgeformer.core.decoding.feed
import org.edgeformer.core.decoding.followLikeliest
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.AudioReader

/**
 * Transcribes audio at the model's rate.
 *
 * Audio longer than the model's window is transcribed in windows that end in pauses; long silence is skipped. Calls from
 * several threads take turns, window by window. `close` releases the decoder; engine and bundle stay the caller's to
 * close.
 */
class Transcriber(
    val bundle: ModelBundle,
    val engine: Engine,
    private val options: TranscribeOptions = TranscribeOptions(),
) : Closeable {
    private val model = SpeechModel(bundle, engine)

    /** Of the audio that it takes, in Hz. */
    val sampleRate: Int get() = model.audio.sampleRate

    internal val spec: Transcription get() = model.spec

    /**
     * Transcribes samples (N) from -1 to 1.
     *
     * @param progress called after each window with the seconds of audio that are done.
     * @throws org.edgeformer.core.InputError the samples hold NaN, or the model cannot do what the options ask for.
     * @throws org.edgeformer.core.EngineError the model failed, or gave NaN or infinity.
     */
    fun run(
        samples: FloatArray,
        options: TranscribeOptions = this.options,
        progress: (seconds: Double) -> Unit = {},
    ): Transcript {
        var taken = 0
        return transcribe(options, progress) { count ->
            val end = minOf(taken + count, samples.size)
            samples.copyOfRange(taken, end).also { taken = end }
        }
    }

    /**
     * Transcribes a recording of any length, such as [org.edgeformer.core.preprocess.openWav] opens, window by window.
     * It stays the caller's to close. See the other `run`.
     *
     * @throws org.edgeformer.core.InputError also: the recording is corrupted, or has another rate than the model.
     */
    fun run(
        recording: AudioReader,
        options: TranscribeOptions = this.options,
        progress: (seconds: Double) -> Unit = {},
    ): Transcript {
        if (recording.sampleRate != sampleRate) {
            throw InputError("the recording was opened at ${recording.sampleRate} Hz: expected $sampleRate")
        }
        return transcribe(options, progress, recording::read)
    }

    private fun transcribe(options: TranscribeOptions, progress: (Double) -> Unit, read: (Int) -> FloatArray): Transcript {
        val session = SpeechSession(model, options)
        val buffer = AudioBuffer()
        val segments = ArrayList<Segment>()
        while (true) {
            // One sample more than a window tells that there is more to come.
            val missing = model.audio.windowSamples + 1 - buffer.samples.size
            if (missing > 0) buffer.append(read(missing))
            if (buffer.samples.isEmpty()) break
            segments += session.transcribeNext(buffer)
            progress(buffer.start.toDouble() / sampleRate)
        }
        return session.transcript(segments, buffer.end)
    }

    /** A transcript of audio that is still arriving; see [run] for what it throws. */
    fun openStream(
        options: TranscribeOptions = this.options,
        streamOptions: StreamOptions = StreamOptions(),
    ) = TranscriptStream(model, SpeechSession(model, options), streamOptions)

    override fun close() = model.close()

    /** The input of a bucket's `encode`, (1, n_mels, 2 T), for samples (N). */
    internal fun mel(samples: FloatArray, bucket: AudioBucket): FloatTensor = model.mel(samples, bucket)

    /** The decoder of a bucket, which belongs to the transcriber. */
    internal fun decoder(bucket: AudioBucket): SpeechDecoder = model.decoder(bucket)

    /** The reference answer for samples that a bucket holds: greedy, until the end or the cache is full. */
    internal fun plainText(samples: FloatArray, bucket: AudioBucket): String {
        val plain = TranscribeOptions(timestamps = false)
        return synchronized(model.lock) {
            val decoder = model.decoder(bucket)
            decoder.encode(model.mel(samples, bucket))
            val context = feed(decoder, buildPrompt(spec.tokens, plain, spec.tokens.referenceLanguage))
            val longest = bucket.rows - 1 - context.position
            val rules = LogitRules(spec, timestamps = false)
            val search = Search(decoder, context, rules, spec.tokens, longest, stopLoops = false)
            model.tokenizer.text(followLikeliest(search).tokens).trim()
        }
    }
}
