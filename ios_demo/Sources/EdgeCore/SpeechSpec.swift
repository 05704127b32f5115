/// Who keeps the decoder's self-attention cache between calls.
public enum StateKeeper: String, CaseIterable, Sendable {
    /// It is an input, and new rows are outputs.
    case host
    /// The program writes the rows that it is told to.
    case program
}

/// The ids of the tokens that steer a Whisper decoder (Radford et al. 2022, figure 1). nil: the model has none.
public struct SpeechTokens: Equatable, Sendable {
    /// Starts every transcript.
    public let start: Int
    /// Ends every transcript; text tokens are those below it.
    public let end: Int
    /// Starts a prompt, the text that came before.
    public let startOfPrevious: Int?
    /// The model's word for "nobody speaks".
    public let noSpeech: Int?
    /// Asks for text alone.
    public let noTimestamps: Int
    /// 0.00 seconds; each further id is `secondsPerTimestamp` later.
    public let firstTimestamp: Int
    /// The task, of multilingual models.
    public let transcribe: Int?
    /// The task, of multilingual models.
    public let translate: Int?
    /// Id by language code ("en"), of multilingual models; else empty.
    public let languages: [String: Int]

    /// The language of the reference answer: English, or the first that a model without English knows.
    var referenceLanguage: String {
        languages["en"] == nil ? languages.keys.min() ?? "en" : "en"
    }
}

/// Programs for audio of up to `positions` positions of the encoder.
public struct AudioBucket: Hashable, Sendable {
    /// T, positions that are computed from audio.
    public let positions: Int
    /// Positions of precomputed silence that stand in for the rest of the window; attention has S = T + tail.
    public let tail: Int
    /// L, slots of the decoder's self-attention cache: tokens of prompt and transcript together.
    public let rows: Int
    /// The name of the program that transcribes.
    public let encode: String
    /// The name of the program that takes several tokens.
    public let prefill: String
    /// The name of the program that takes one token.
    public let decode: String
}

/// From the decoder's logits to text.
public struct Transcription: Equatable, Sendable {
    /// The bundle's tokenizers file; decoding is byte-level BPE.
    public let tokenizer: String
    /// The special tokens.
    public let tokens: SpeechTokens
    /// Ids that are never an answer.
    public let suppress: [Int]
    /// Ids that are no first answer.
    public let suppressAtStart: [Int]
    /// V, length of the logits.
    public let vocabSize: Int
    /// Of the decoder.
    public let layers: Int
    /// H, of the decoder.
    public let heads: Int
    /// D, of the decoder.
    public let headDim: Int
    /// A, heads whose attention to the audio the programs give.
    public let alignmentHeads: Int
    /// P, tokens that `prefill` takes at once.
    public let prefillTokens: Int
    /// Who keeps the cache.
    public let state: StateKeeper
    /// From one timestamp token to the next.
    public let secondsPerTimestamp: Double
    /// The latest first timestamp of a window, in seconds.
    public let maxInitialTimestamp: Double
    /// By rising positions, at least one.
    public let buckets: [AudioBucket]

    init(
        tokenizer: String, tokens: SpeechTokens, suppress: [Int], suppressAtStart: [Int], vocabSize: Int, layers: Int,
        heads: Int, headDim: Int, alignmentHeads: Int, prefillTokens: Int, state: StateKeeper,
        secondsPerTimestamp: Double, maxInitialTimestamp: Double, buckets: [AudioBucket]
    ) throws {
        guard !buckets.isEmpty, zip(buckets, buckets.dropFirst()).allSatisfy({ $0.positions < $1.positions }) else {
            throw BundleError("transcription: expected buckets of rising positions, found \(buckets.map(\.positions))")
        }
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.suppress = suppress
        self.suppressAtStart = suppressAtStart
        self.vocabSize = vocabSize
        self.layers = layers
        self.heads = heads
        self.headDim = headDim
        self.alignmentHeads = alignmentHeads
        self.prefillTokens = prefillTokens
        self.state = state
        self.secondsPerTimestamp = secondsPerTimestamp
        self.maxInitialTimestamp = maxInitialTimestamp
        self.buckets = buckets
    }

    /// The bucket that takes the whole window.
    var largestBucket: AudioBucket { buckets[buckets.count - 1] }

    /// Every id that the manifest mentions.
    var allTokenIds: [Int] {
        let steering = [
            tokens.start, tokens.end, tokens.startOfPrevious, tokens.noSpeech, tokens.noTimestamps,
            tokens.firstTimestamp,
            tokens.transcribe, tokens.translate,
        ]
        return steering.compactMap { $0 } + tokens.languages.values + suppress + suppressAtStart
    }
}
