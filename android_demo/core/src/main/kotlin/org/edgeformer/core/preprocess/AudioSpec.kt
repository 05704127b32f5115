package org.edgeformer.core.preprocess

import org.edgeformer.core.BundleError
import org.edgeformer.core.Fields
import org.edgeformer.core.Preprocessing

/**
 * Audio to a log-mel spectrogram (Radford et al. 2022, section 2.2).
 *
 * @property sampleRate of the model, in Hz.
 * @property nFft samples of one frame, under a periodic Hann window.
 * @property hopLength samples from one frame to the next; an encoder position is two frames.
 * @property nMels bands of the mel scale.
 * @property melFilters the bundle's file with the filter bank.
 * @property windowSeconds the longest audio that one run of the model takes.
 * @property logFloor what powers are raised to before the logarithm (base 10).
 * @property dynamicRange how far below the largest value of the window others may lie, in powers of ten.
 */
data class AudioPreprocessing(
    val sampleRate: Int,
    val nFft: Int,
    val hopLength: Int,
    val nMels: Int,
    val melFilters: String,
    val windowSeconds: Int,
    val logFloor: Double,
    val dynamicRange: Double,
) : Preprocessing {
    override val kind: String get() = "audio"

    /** Samples that one position of the encoder stands for: two frames, as its second convolution has stride 2. */
    val samplesPerPosition: Int get() = 2 * hopLength

    /** The most samples that the model transcribes at once. */
    val windowSamples: Int get() = windowSeconds * sampleRate

    init {
        if (nFft % 2 != 0 || hopLength > nFft) {
            throw BundleError(
                "audio preprocessing: expected an even n_fft of at least hop_length, found $nFft and $hopLength",
            )
        }
    }

    internal companion object {
        fun read(fields: Fields) = AudioPreprocessing(
            sampleRate = fields.int("sample_rate", 1000..192000L),
            nFft = fields.int("n_fft", 16..16384L),
            hopLength = fields.int("hop_length", 8..16384L),
            nMels = fields.int("n_mels", 1..1024L),
            melFilters = fields.string("mel_filters"),
            windowSeconds = fields.int("window_seconds", 1..600L),
            logFloor = fields.number("log_floor", 0.0, 1.0, aboveLeast = true),
            dynamicRange = fields.number("dynamic_range", 0.0, 100.0, aboveLeast = true),
        )
    }
}
