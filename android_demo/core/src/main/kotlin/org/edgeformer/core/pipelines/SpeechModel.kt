package org.edgeformer.core.pipelines

import org.edgeformer.core.AudioBucket
import org.edgeformer.core.Bundle
import org.edgeformer.core.FRAMES_PER_POSITION
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.InputError
import org.edgeformer.core.Transcription
import org.edgeformer.core.decoding.SpeechTokenizer
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.SpeechDecoder
import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.LogMel
import org.edgeformer.core.preprocess.Silence
import org.edgeformer.core.preprocess.readMelFilters
import java.io.Closeable

/** Decoders that are kept open: a sound's windows, and its last one. Each holds caches of some MB. */
private const val OPEN_DECODERS = 2

/**
 * What all transcriptions with a bundle share: its tokenizer, its mel filters, and the decoders of the lengths of sound in
 * use. Use it under `lock` while a decoder is in use.
 */
internal class SpeechModel(bundle: Bundle, val engine: Engine) : Closeable {
    val audio = bundle.manifest.preprocessing as AudioPreprocessing
    val spec = bundle.manifest.postprocessing as Transcription
    val tokenizer = SpeechTokenizer(bundle.readBytes(spec.tokenizer), spec.tokenizer, spec.tokens.end)
    val silence = Silence(audio.sampleRate)
    val lock = Any()

    private val logMel = LogMel(audio, readMelFilters(bundle.map(audio.melFilters), audio))
    private val decoders = LinkedHashMap<String, SpeechDecoder>()

    /** The smallest bucket that holds so many samples. */
    fun bucketFor(samples: Int): AudioBucket {
        val positions = (samples + audio.samplesPerPosition - 1) / audio.samplesPerPosition
        return spec.buckets.firstOrNull { it.positions >= positions }
            ?: throw InputError("expected at most ${audio.windowSamples} samples of sound at once, found $samples")
    }

    /** The input of a bucket's `encode`, (1, n_mels, 2 T), for samples (N). */
    fun mel(samples: FloatArray, bucket: AudioBucket): FloatTensor =
        logMel.mel(samples, FRAMES_PER_POSITION * bucket.positions)

    /** The open decoder of a bucket; the one that has not been used for longest makes room for it. */
    fun decoder(bucket: AudioBucket): SpeechDecoder {
        val known = decoders.remove(bucket.encode)
        if (known == null && decoders.size >= OPEN_DECODERS) decoders.remove(decoders.keys.first())?.close()
        return (known ?: engine.openDecoder(bucket, spec)).also { decoders[bucket.encode] = it }
    }

    /** Releases the decoders. A second call does nothing. */
    override fun close() = synchronized(lock) {
        decoders.values.forEach { it.close() }
        decoders.clear()
    }
}
