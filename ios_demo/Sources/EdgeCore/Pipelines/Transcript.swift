/// Text that was said in one piece.
public struct Segment: Equatable, Sendable {
    /// In seconds from the start of the audio.
    public let start: Double
    /// In seconds from the start of the audio.
    public let end: Double
    /// Without spaces around it.
    public let text: String
    /// Of the window's tokens.
    public let meanLogProbability: Double
    /// That nobody speaks in the window; nil where the model has no token for it.
    public let noSpeechProbability: Float?
    /// The window's text is improbable or ended in a loop.
    public var isDoubtful = false
}

/// What a transcript cost, in wall-clock time.
public struct SpeechStatistics: Equatable, Sendable {
    /// From samples to spectrograms.
    public internal(set) var melMs = 0.0
    /// Of the encoder.
    public internal(set) var encodeMs = 0.0
    /// Of the decoder.
    public internal(set) var decodeMs = 0.0
    /// Of text and timestamps in the answer.
    public internal(set) var tokens = 0
    /// Windows of audio that the model transcribed; skipped silence is none.
    public internal(set) var windows = 0
}

/// What was said in a recording.
public struct Transcript: Equatable, Sendable {
    /// Of all segments.
    public let text: String
    /// A code as "en"; nil where all is silence and nothing was asked for.
    public let language: String?
    /// In order.
    public let segments: [Segment]
    /// Of the audio, in seconds.
    public let duration: Double
    /// What the transcript cost.
    public let statistics: SpeechStatistics
}
