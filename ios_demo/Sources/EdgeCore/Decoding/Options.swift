/// What a transcription may do with the language.
public enum SpeechTask: String, CaseIterable, Sendable {
    /// Text in the language that is spoken.
    case transcribe
    /// Text in English.
    case translate
}

/// How to transcribe. The thresholds are those of Radford et al. 2022, section 4.5.
public struct TranscribeOptions: Sendable {
    /// A code as "en"; nil: found out from the first audio that is no silence.
    public var language: String?
    /// Transcribe, or translate into English.
    public var task = SpeechTask.transcribe
    /// Let the model say when its segments begin and end, which makes it skip less of long audio. Without, a segment is a
    /// window of audio.
    public var timestamps = true
    /// A probability of no speech above this makes an improbable text silence.
    public var noSpeechThreshold: Float = 0.6
    /// A mean log probability of tokens below this is improbable.
    public var logProbabilityThreshold = -1.0
    /// The longest text of a window, in tokens.
    public var maxTokens = 224

    /// The defaults.
    public init() {}
}
