package org.edgeformer.core.decoding

import org.edgeformer.core.InputError

/** What is written: what is said, or its translation into English. */
enum class SpeechTask { TRANSCRIBE, TRANSLATE }

/**
 * How to transcribe: greedily, at temperature 0.
 *
 * @property language a code as "en"; null: found out from the first audio that is no silence.
 * @property timestamps let the model say when its segments begin and end, which makes it skip less of long audio. Without, a
 *   segment is a window of audio.
 * @property logProbabilityThreshold a mean log probability of tokens below this is improbable.
 * @property noSpeechThreshold a probability of no speech above this makes an improbable text silence.
 * @property maxTokens the longest text of a window, in tokens.
 */
data class TranscribeOptions(
    val language: String? = null,
    val task: SpeechTask = SpeechTask.TRANSCRIBE,
    val timestamps: Boolean = true,
    val logProbabilityThreshold: Double = -1.0,
    val noSpeechThreshold: Double = 0.6,
    val maxTokens: Int = 224,
) {
    init {
        if (maxTokens < 1) throw InputError("maxTokens: expected at least 1, found $maxTokens")
    }
}
