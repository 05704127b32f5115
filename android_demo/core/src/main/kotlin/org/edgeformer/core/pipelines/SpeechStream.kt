package org.edgeformer.core.pipelines

import org.edgeformer.core.InputError
import org.edgeformer.core.preprocess.PauseOptions

/** New audio after which pauses are looked for: blocks may be much shorter. */
private const val LOOK_SECONDS = 0.1

/**
 * When a stream gives text.
 *
 * @property partialSeconds new audio after which the guess is made anew.
 * @property pauseSeconds a pause that ends a sentence of [settledSeconds]: its text becomes final.
 * @property longPauseSeconds a pause that ends any sentence.
 * @property settledSeconds audio that is long enough to be understood without what follows.
 */
data class StreamOptions(
    val partialSeconds: Double = 1.0,
    val pauseSeconds: Double = 0.7,
    val longPauseSeconds: Double = 1.5,
    val settledSeconds: Double = 8.0,
) {
    init {
        if (pauseSeconds <= 0 || pauseSeconds > longPauseSeconds || minOf(partialSeconds, settledSeconds) <= 0) {
            throw InputError("stream: expected seconds above 0, and pauseSeconds at most longPauseSeconds, found $this")
        }
    }
}

/**
 * What a stream says.
 *
 * @property final segments that are new and will not change.
 * @property partial a guess at what follows them; it replaces the last one.
 * @property seconds of audio that has arrived.
 */
data class StreamUpdate(val final: List<Segment>, val partial: String, val seconds: Double)

/**
 * Text while audio arrives: first a guess, then, at a pause, what stays. Not for several threads at once; open it with
 * [Transcriber.openStream].
 */
class TranscriptStream internal constructor(
    private val model: SpeechModel,
    private val session: SpeechSession,
    private val options: StreamOptions,
) {
    private val rate = model.audio.sampleRate
    private val buffer = AudioBuffer()
    private val segments = ArrayList<Segment>()
    private var lookedAt = 0
    private var guessedAt = 0
    private var partial = ""
    private var isFinished = false

    /** All that is final so far. */
    val transcript: Transcript get() = session.transcript(segments, buffer.end)

    /**
     * Takes the next audio: (N) samples at the model's rate, from -1 to 1, of any number.
     *
     * @return what is new, often nothing.
     * @throws InputError the stream has ended.
     * @throws org.edgeformer.core.EngineError the model failed, or gave NaN or infinity.
     */
    fun feed(block: FloatArray): List<StreamUpdate> {
        if (isFinished) throw InputError("the stream has ended: open another one")
        buffer.append(block)
        val updates = ArrayList<StreamUpdate>()
        while (buffer.samples.size > model.audio.windowSamples) updates += settle(session.transcribeNext(buffer))
        if (buffer.end - lookedAt < LOOK_SECONDS * rate) return updates
        lookedAt = buffer.end
        val pause = sentenceEnd()
        if (pause != null) {
            updates += settle(session.transcribeFirst(buffer, pause))
        } else if (buffer.end - guessedAt >= options.partialSeconds * rate) {
            updates += guess()
        }
        return updates
    }

    /** Ends the audio: what is left becomes final. A second call gives nothing. */
    fun finish(): List<StreamUpdate> {
        isFinished = true
        val updates = ArrayList<StreamUpdate>()
        while (buffer.samples.isNotEmpty()) updates += settle(session.transcribeNext(buffer))
        return updates
    }

    /** Nothing where nothing was said, unless there is a guess to take back. */
    private fun settle(found: List<Segment>): List<StreamUpdate> {
        segments += found
        guessedAt = buffer.end
        val isTakenBack = partial.isNotEmpty()
        partial = ""
        return if (found.isNotEmpty() || isTakenBack) listOf(StreamUpdate(found, "", seconds())) else emptyList()
    }

    /** Nothing where the guess is still the same. */
    private fun guess(): List<StreamUpdate> {
        guessedAt = buffer.end
        val found = session.guess(buffer.samples)
        if (found == partial) return emptyList()
        partial = found
        return listOf(StreamUpdate(emptyList(), found, seconds()))
    }

    /** Where to cut, if the buffer ends in a pause that is long enough: in its middle. Drops leading silence. */
    private fun sentenceEnd(): Int? {
        val samples = buffer.samples
        if (model.silence.isSilent(samples)) {
            buffer.drop(maxOf(0, samples.size - Math.rint(options.pauseSeconds * rate).toInt()))
            return null
        }
        val pauses = PauseOptions(options.pauseSeconds, marginSeconds = 0.0)
        val last = model.silence.speechRanges(samples, pauses).lastOrNull() ?: return null
        val end = last.last + 1
        val isSettled = end >= options.settledSeconds * rate
        val needed = if (isSettled) options.pauseSeconds else options.longPauseSeconds
        return if (samples.size - end >= needed * rate) (end + samples.size) / 2 else null
    }

    private fun seconds() = buffer.end.toDouble() / rate
}
