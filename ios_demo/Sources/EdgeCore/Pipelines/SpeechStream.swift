/// When a stream gives text, in seconds.
public struct StreamOptions: Sendable {
    /// New audio after which the guess is made anew.
    public var partialSeconds = 1.0
    /// A pause that ends a sentence of `settledSeconds`: its text becomes final.
    public var pauseSeconds = 0.7
    /// A pause that ends any sentence.
    public var longPauseSeconds = 1.5
    /// Audio that is long enough to be understood without what follows.
    public var settledSeconds = 8.0

    /// The defaults.
    public init() {}
}

/// What a stream says.
public struct StreamUpdate: Equatable, Sendable {
    /// Segments that are new and will not change.
    public let final: [Segment]
    /// A guess at what follows them; it replaces the last one.
    public let partial: String
    /// Of audio that has arrived.
    public let seconds: Double
}

/// Takes audio as it arrives: first a guess, then, at a pause, what stays. Not for several threads at once.
final class SpeechStream {
    /// New audio after which pauses are looked for: blocks may be much shorter.
    private static let lookSeconds = 0.1

    private let session: SpeechSession
    private let options: StreamOptions
    private let rate: Int
    private let windowSamples: Int
    private var buffer = AudioBuffer()
    private var lookedAt = 0
    private var guessedAt = 0
    private var partial = ""
    private var segments: [Segment] = []

    init(_ model: SpeechModel, _ session: SpeechSession, _ options: StreamOptions) {
        self.session = session
        self.options = options
        rate = model.audio.sampleRate
        windowSamples = model.audio.windowSamples
    }

    /// Take the next samples at the model's rate; what is new, often nothing.
    func feed(_ samples: [Float]) throws -> [StreamUpdate] {
        buffer.append(samples)
        var updates: [StreamUpdate] = []
        while buffer.samples.count > windowSamples { updates += final(try session.transcribeNext(&buffer)) }
        guard Double(buffer.end - lookedAt) >= Self.lookSeconds * Double(rate) else { return updates }
        lookedAt = buffer.end
        if let pause = sentenceEnd() {
            updates += final(try session.transcribeFirst(&buffer, pause))
        } else if Double(buffer.end - guessedAt) >= options.partialSeconds * Double(rate) {
            updates += try guess()
        }
        return updates
    }

    /// End the audio: what is left becomes final.
    func finish() throws -> [StreamUpdate] {
        var updates: [StreamUpdate] = []
        while !buffer.samples.isEmpty { updates += final(try session.transcribeNext(&buffer)) }
        return updates
    }

    /// All that is final so far.
    var transcript: Transcript { session.transcript(segments, samples: buffer.end) }

    /// Nothing where nothing was said, unless there is a guess to take back.
    private func final(_ found: [Segment]) -> [StreamUpdate] {
        segments += found
        guessedAt = buffer.end
        let isNews = !found.isEmpty || !partial.isEmpty
        partial = ""
        return isNews ? [StreamUpdate(final: found, partial: "", seconds: seconds)] : []
    }

    /// Nothing where the guess is still the same.
    private func guess() throws -> [StreamUpdate] {
        guessedAt = buffer.end
        let found = try session.guess(buffer.samples)
        guard found != partial else { return [] }
        partial = found
        return [StreamUpdate(final: [], partial: found, seconds: seconds)]
    }

    private var seconds: Double { Double(buffer.end) / Double(rate) }

    /// Where to cut, if the buffer ends in a pause that is long enough: in its middle. Drops leading silence.
    private func sentenceEnd() -> Int? {
        let samples = buffer.samples
        if Silence.isSilent(samples, sampleRate: rate) {
            let kept = Int((options.pauseSeconds * Double(rate)).rounded(.toNearestOrEven))
            buffer.drop(max(0, samples.count - kept))
            return nil
        }
        let pauses = PauseOptions(minPauseSeconds: options.pauseSeconds, marginSeconds: 0)
        guard let end = Silence.speechRanges(samples, sampleRate: rate, pauses).last?.upperBound else { return nil }
        let isSettled = Double(end) >= options.settledSeconds * Double(rate)
        let needed = isSettled ? options.pauseSeconds : options.longPauseSeconds
        return Double(samples.count - end) >= needed * Double(rate) ? (end + samples.count) / 2 : nil
    }
}
