package org.edgeformer.core

private val TOKEN_ID = 0..Int.MAX_VALUE.toLong()
private val LANGUAGE = Regex("[a-z]{2,8}")

/** Who keeps the decoder's self-attention cache between calls: whoever calls, or the programs. */
enum class State { HOST, PROGRAM }

/**
 * The ids of the tokens that steer a Whisper decoder (Radford et al. 2022, figure 1). Null: the model has none.
 *
 * @property start starts every transcript.
 * @property end ends every transcript.
 * @property startOfPrevious starts a prompt, the text that came before.
 * @property noSpeech the model's word for "nobody speaks"; its probability after [start] is what matters.
 * @property noTimestamps asks for text alone.
 * @property firstTimestamp 0.00 seconds; each further id is `secondsPerTimestamp` later.
 * @property transcribe the task, of multilingual models; [translate] likewise.
 * @property languages id by language code ("en"), of multilingual models; else empty.
 */
data class SpeechTokens(
    val start: Int,
    val end: Int,
    val startOfPrevious: Int?,
    val noSpeech: Int?,
    val noTimestamps: Int,
    val firstTimestamp: Int,
    val transcribe: Int?,
    val translate: Int?,
    val languages: Map<String, Int>,
) {
    /** The language of the reference answer: English, or the first that a model without English knows. */
    internal val referenceLanguage: String
        get() = if (languages.isEmpty() || "en" in languages) "en" else languages.keys.min()

    internal companion object {
        fun read(fields: Fields) = SpeechTokens(
            start = fields.int("start", TOKEN_ID),
            end = fields.int("end", TOKEN_ID),
            startOfPrevious = fields.optionalInt("start_of_previous", TOKEN_ID),
            noSpeech = fields.optionalInt("no_speech", TOKEN_ID),
            noTimestamps = fields.int("no_timestamps", TOKEN_ID),
            firstTimestamp = fields.int("first_timestamp", TOKEN_ID),
            transcribe = fields.optionalInt("transcribe", TOKEN_ID),
            translate = fields.optionalInt("translate", TOKEN_ID),
            languages = fields.table("languages", 0..1000, 2..8) { ids, code ->
                if (!LANGUAGE.matches(code)) fields.fail("languages", "expected codes, found ${shorten(code)}")
                ids.int(code, TOKEN_ID)
            },
        )
    }
}

/**
 * Programs for audio of up to [positions] positions of the encoder.
 *
 * @property positions T, positions that are computed from audio.
 * @property tail positions of precomputed silence that stand in for the rest of the window; attention has S = T + tail.
 * @property rows L, slots of the decoder's self-attention cache: tokens of prompt and transcript together.
 * @property encode the name of a program, as are [prefill] and [decode].
 */
data class AudioBucket(
    val positions: Int,
    val tail: Int,
    val rows: Int,
    val encode: String,
    val prefill: String,
    val decode: String,
) {
    internal companion object {
        fun read(fields: Fields) = AudioBucket(
            positions = fields.int("positions", 1..100000L),
            tail = fields.int("tail", 0..100000L),
            rows = fields.int("rows", 4..100000L),
            encode = fields.string("encode", WORD),
            prefill = fields.string("prefill", WORD),
            decode = fields.string("decode", WORD),
        )
    }
}

/**
 * From the decoder's logits to text.
 *
 * @property tokenizer the bundle's tokenizers file; decoding is byte-level BPE.
 * @property tokens the special tokens.
 * @property suppress ids that are never an answer.
 * @property suppressAtStart ids that are no first answer.
 * @property vocabSize V, length of the logits.
 * @property layers of the decoder; with [heads] and [headDim] they shape its caches.
 * @property alignmentHeads A, heads whose attention to the audio the programs give.
 * @property prefillTokens P, tokens that `prefill` takes at once.
 * @property state who keeps the decoder's self-attention cache.
 * @property secondsPerTimestamp from one timestamp token to the next.
 * @property maxInitialTimestamp the latest first timestamp of a window, in seconds.
 * @property buckets in the order of their positions; the last one takes the whole window.
 */
data class Transcription(
    val tokenizer: String,
    val tokens: SpeechTokens,
    val suppress: List<Int>,
    val suppressAtStart: List<Int>,
    val vocabSize: Int,
    val layers: Int,
    val heads: Int,
    val headDim: Int,
    val alignmentHeads: Int,
    val prefillTokens: Int,
    val state: State,
    val secondsPerTimestamp: Double,
    val maxInitialTimestamp: Double,
    val buckets: List<AudioBucket>,
) : Postprocessing() {
    override val kind: String get() = "transcription"

    init {
        val positions = buckets.map { it.positions }
        if (positions != positions.distinct().sorted()) {
            throw BundleError("transcription: expected buckets of rising positions, found $positions")
        }
    }

    internal companion object {
        fun read(fields: Fields) = Transcription(
            tokenizer = fields.string("tokenizer"),
            tokens = fields.obj("tokens", SpeechTokens::read),
            suppress = fields.ints("suppress", 0..100_000, TOKEN_ID),
            suppressAtStart = fields.ints("suppress_at_start", 0..100_000, TOKEN_ID),
            vocabSize = fields.int("vocab_size", 1..10_000_000L),
            layers = fields.int("layers", 1..60L),
            heads = fields.int("heads", 1..1024L),
            headDim = fields.int("head_dim", 1..4096L),
            alignmentHeads = fields.int("alignment_heads", 1..4096L),
            prefillTokens = fields.int("prefill_tokens", 2..4096L),
            state = if (fields.choice("state", listOf("host", "program")) == "host") State.HOST else State.PROGRAM,
            secondsPerTimestamp = fields.number("seconds_per_timestamp", 0.0, 10.0, aboveLeast = true),
            maxInitialTimestamp = fields.number("max_initial_timestamp", 0.0, 600.0),
            buckets = fields.objects("buckets", 1..21, AudioBucket::read),
        )
    }
}
