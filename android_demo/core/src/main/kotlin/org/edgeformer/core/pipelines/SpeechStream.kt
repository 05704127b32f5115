package org.edgeformer.core.pipelines

import org.edgeformer.core.InputError
import org.edgeformer.core.decoding.hasSpaces
import org.edgeformer.core.preprocess.PauseOptions

/** New audio after which pauses are looked for: blocks may be much shorter. */
private const val LOOK_SECONDS = 0.1

/**
 * A pause behind which a guess is made at once: all words before it have ended. A plosive is silent for 0.1 s.
 */
private const val BREATH_SECONDS = 0.3

/** Of the time that guesses may take: on a slow machine, and in long sentences, they are made less often. */
private const val GUESSING_SHARE = 0.2

/** Of `settledSeconds`: half a pause ends what is longer, as guesses at it cost more and more. */
private const val LONG_SENTENCE = 1.5

/** Of speech that adds no word to the guess: the model has lost the thread, and takes it up behind a cut near there. */
private const val STALLED_SECONDS = 3.0
private const val NEAR_SECONDS = 1.0

/** Of silence that are kept: a soft first letter may be in them. */
private const val ONSET_SECONDS = 0.5

/**
 * When a stream gives text.
 *
 * @property partialSeconds new audio after which the guess is made anew, if guesses take a fifth of the time at most.
 * @property pauseSeconds a pause that ends a sentence of [settledSeconds]: its text becomes final.
 * @property longPauseSeconds a pause that ends any sentence.
 * @property settledSeconds audio that is long enough to be understood without what follows.
 */
data class StreamOptions(
    val partialSeconds: Double = 0.5,
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
 * @property stable how [partial] begins, up to where it hardly ever changes: words that the guess before had, too, or
 *   that a breath followed.
 * @property lateSeconds of audio that had waited for this, where audio may wait: in `Model.stream`.
 */
data class StreamUpdate(
    val final: List<Segment>,
    val partial: String,
    val seconds: Double,
    val stable: String = "",
    val lateSeconds: Double = 0.0,
)

/**
 * Text while audio arrives: first a guess, then, at a pause, what stays. Not for several threads at once; open it with
 * [Transcriber.openStream].
 */
class TranscriptStream internal constructor(
    private val model: SpeechModel,
    private val session: SpeechSession,
    private val options: StreamOptions,
    private val nanoTime: () -> Long = System::nanoTime,
) {
    private val rate = model.audio.sampleRate
    private val buffer = AudioBuffer()
    private val segments = ArrayList<Segment>()
    private var lookedAt = 0
    private var guessedAt = 0
    private var grownAt = 0
    private var guessSeconds = 0.0
    private var partial = ""
    private var stable = ""
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
        val ranges = ranges()
        if (ranges.isEmpty()) return updates
        val cut = sentenceEnd(ranges) ?: if (isStalled(ranges)) cutNear(grownAt) else null
        if (cut != null) {
            updates += settle(session.transcribeFirst(buffer, cut))
        } else if (isGuessDue(ranges)) {
            updates += guess(ranges)
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
        grownAt = buffer.end
        val isTakenBack = partial.isNotEmpty()
        partial = ""
        stable = ""
        return if (found.isNotEmpty() || isTakenBack) listOf(StreamUpdate(found, "", seconds())) else emptyList()
    }

    /** After some audio, or a breath, unless all speech was in the last guess or guesses cost too much. */
    private fun isGuessDue(ranges: List<IntRange>): Boolean {
        val waited = (buffer.end - guessedAt).toDouble() / rate
        if (waited < guessSeconds / GUESSING_SHARE) return false
        val breathed = breathed(ranges)
        return if (buffer.samples.size >= breathed) {
            guessedAt - buffer.start < breathed
        } else {
            waited >= options.partialSeconds
        }
    }

    private fun breathed(ranges: List<IntRange>) = ranges.last().last + 1 + samples(BREATH_SECONDS)

    /** Nothing where the guess is still the same. */
    private fun guess(ranges: List<IntRange>): List<StreamUpdate> {
        guessedAt = buffer.end
        val begin = nanoTime()
        val found = session.guess(buffer.samples)
        guessSeconds = (nanoTime() - begin) / 1e9
        val sure = if (buffer.samples.size >= breathed(ranges)) found else agreed(partial, found, stable)
        if (plainWords(found).size > plainWords(partial).size) grownAt = buffer.end
        if (found == partial && sure == stable) return emptyList()
        partial = found
        stable = sure
        return listOf(StreamUpdate(emptyList(), found, seconds(), sure))
    }

    /** Where somebody speaks in the buffer; silence alone is dropped but for its end. */
    private fun ranges(): List<IntRange> {
        val pauses = PauseOptions(minOf(options.pauseSeconds, BREATH_SECONDS), marginSeconds = 0.0)
        val found = model.silence.speechRanges(buffer.samples, pauses)
        if (found.isEmpty()) {
            buffer.drop(maxOf(0, buffer.samples.size - samples(maxOf(options.pauseSeconds, ONSET_SECONDS))))
            guessedAt = buffer.end
            grownAt = buffer.end
        }
        return found
    }

    /** Whether the last guess heard much more speech than the one that grew, and gave no more words. */
    private fun isStalled(ranges: List<IntRange>): Boolean {
        val grown = grownAt - buffer.start
        val heard = guessedAt - buffer.start
        val spoken = ranges.sumOf { maxOf(0, minOf(it.last + 1, heard) - maxOf(it.first, grown)) }
        return spoken >= STALLED_SECONDS * rate
    }

    /** The best cut near a sample of the recording. */
    private fun cutNear(place: Int): Int {
        val count = buffer.samples.size
        val near = samples(NEAR_SECONDS)
        val middle = place - buffer.start
        val earliest = minOf(count, maxOf(near, middle - near))
        return model.silence.quietestCut(buffer.samples, earliest, minOf(count, maxOf(near, middle + near)))
    }

    /** Where to cut, if the buffer ends in a pause that is long enough: in its middle. */
    private fun sentenceEnd(ranges: List<IntRange>): Int? {
        val end = ranges.last().last + 1
        val needed = when {
            end >= LONG_SENTENCE * options.settledSeconds * rate -> options.pauseSeconds / 2
            end >= options.settledSeconds * rate -> options.pauseSeconds
            else -> options.longPauseSeconds
        }
        val count = buffer.samples.size
        return if (count - end >= needed * rate) (end + count) / 2 else null
    }

    private fun samples(seconds: Double) = Math.rint(seconds * rate).toInt()

    private fun seconds() = buffer.end.toDouble() / rate
}

/**
 * How a guess begins as the one before it did, in whole words (Liu et al. 2020, local agreement). Case and punctuation
 * make no difference. What was stable before stays so while the words are the same.
 */
internal fun agreed(before: String, now: String, stable: String = ""): String {
    val words = plainWords(now)
    var shared = plainWords(before).zip(words).takeWhile { (old, new) -> old.first == new.first }.size
    val kept = plainWords(stable).map { it.first }
    if (kept == words.take(kept.size).map { it.first }) shared = maxOf(shared, kept.size)
    return if (shared == 0) "" else now.take(words[shared - 1].second)
}

private val WORD = Regex("\\S+")
private val CHARACTER = Regex("\\S")

/** Words without case and punctuation, and where each ends in the text; characters where there are no spaces. */
private fun plainWords(text: String): List<Pair<String, Int>> {
    val isSpaced = text.isEmpty() || hasSpaces(text.codePointBefore(text.length), text.codePointAt(0))
    return (if (isSpaced) WORD else CHARACTER).findAll(text)
        .map { it.value.lowercase().filter(Char::isLetterOrDigit) to it.range.first + it.value.trimEnd(*MARKS).length }
        .filter { it.first.isNotEmpty() }
        .toList()
}

private val MARKS = ".,;:!?-".toCharArray()
