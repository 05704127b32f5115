package org.edgeformer.core.pipelines

import java.io.Closeable
import org.edgeformer.core.AudioBucket
import org.edgeformer.core.FRAMES_PER_POSITION
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Transcription
import org.edgeformer.core.decoding.SpeechTokenizer
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.LogMel
import org.edgeformer.core.preprocess.Silence
import org.edgeformer.core.preprocess.readMelFilters

/**
 * Computed silence that a bucket has behind the audio. Where precomputed silence begins right behind the last word,
 * decoders lose words or lose themselves; the whole window, which has none of it, needs no slack.
 */
private const val SLACK_SECONDS = 0.5

/**
 * What all transcriptions with a bundle share: its tokenizer, its mel filters, and the decoder of the length of audio
 * in use. Hold `lock` while the decoder is in use.
 */
internal class SpeechModel(bundle: ModelBundle, val engine: Engine) : Closeable {
    val audio = bundle.manifest.preprocessing as AudioPreprocessing
    val spec = bundle.manifest.postprocessing as Transcription
    val tokenizer = SpeechTokenizer(bundle.readBytes(spec.tokenizer), spec.tokenizer, spec.tokens.end)
    val silence = Silence(audio.sampleRate)
    val lock = Any()

    private val logMel = LogMel(audio, readMelFilters(bundle.map(audio.melFilters), audio))
    private var open: Pair<AudioBucket, SpeechDecoder>? = null

    /** The smallest bucket that holds so many samples and [SLACK_SECONDS] of silence, or else the whole window. */
    fun bucketFor(samples: Int): AudioBucket {
        if (samples > audio.windowSamples) {
            throw InputError("expected at most ${audio.windowSamples} samples of audio at once, found $samples")
        }
        val needed = samples + Math.rint(SLACK_SECONDS * audio.sampleRate).toInt()
        return spec.buckets.firstOrNull { it.positions * audio.samplesPerPosition >= needed } ?: spec.buckets.last()
    }

    /** The input of a bucket's `encode`, (1, n_mels, 2 T), for samples (N). */
    fun mel(samples: FloatArray, bucket: AudioBucket): FloatTensor =
        logMel.mel(samples, FRAMES_PER_POSITION * bucket.positions)

    /**
     * The open decoder of a bucket, which takes the place of another bucket's: its caches have some MB, and opening it
     * takes a hundredth of transcribing a recording.
     */
    fun decoder(bucket: AudioBucket): SpeechDecoder {
        open?.let { (known, decoder) -> if (known == bucket) return decoder }
        closeDecoder()
        return engine.openDecoder(bucket, spec).also { open = bucket to it }
    }

    /** Releases the decoder. A second call does nothing. */
    override fun close() = synchronized(lock) { closeDecoder() }

    private fun closeDecoder() {
        open?.second?.close()
        open = null
    }
}
