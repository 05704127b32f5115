/// When a stream gives text, in seconds.
public struct StreamOptions: Sendable {
    /// New audio after which the guess is made anew, if guesses take a fifth of the time at most.
    public var partialSeconds = 0.5
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
    /// How `partial` begins, up to where it hardly ever changes: words that the guess before had, too, or that a breath
    /// followed.
    public var stable = ""
    /// Of audio that had waited for this, where audio may wait: in `Model.stream`.
    public internal(set) var lateSeconds = 0.0
}

/// Takes audio as it arrives: first a guess, then, at a pause, what stays. Not for several threads at once.
final class SpeechStream {
    /// New audio after which pauses are looked for: blocks may be much shorter.
    private static let lookSeconds = 0.1
    /// A pause behind which a guess is made at once: all words before it have ended. A plosive is silent for 0.1 s.
    private static let breathSeconds = 0.3
    /// Of the time that guesses may take: on a slow machine, and in long sentences, they are made less often.
    private static let guessingShare = 0.2
    /// Of `settledSeconds`: half a pause ends what is longer, as guesses at it cost more and more.
    private static let longSentence = 1.5
    /// Of speech that adds no word to the guess: the model has lost the thread, and takes it up behind a cut near there.
    private static let stalledSeconds = 3.0, nearSeconds = 1.0
    /// Of silence that are kept: a soft first letter may be in them.
    private static let onsetSeconds = 0.5

    private let session: SpeechSession
    private let options: StreamOptions
    private let rate: Int
    private let windowSamples: Int
    private var buffer = AudioBuffer()
    private var lookedAt = 0
    private var guessedAt = 0
    private var grownAt = 0
    private var guessSeconds = 0.0
    private var partial = ""
    private var stable = ""
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
        let ranges = self.ranges()
        guard let last = ranges.last else { return updates }
        if let cut = sentenceEnd(last.upperBound) ?? (isStalled(ranges) ? cut(near: grownAt) : nil) {
            updates += final(try session.transcribeFirst(&buffer, cut))
        } else if isGuessDue(last.upperBound) {
            updates += try guess(last.upperBound)
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
        grownAt = buffer.end
        let isNews = !found.isEmpty || !partial.isEmpty
        partial = ""
        stable = ""
        return isNews ? [StreamUpdate(final: found, partial: "", seconds: seconds)] : []
    }

    /// After some audio, or a breath, unless all speech (up to sample `end`) was in the last guess or guesses cost too
    /// much.
    private func isGuessDue(_ end: Int) -> Bool {
        let waited = Double(buffer.end - guessedAt) / Double(rate)
        guard waited >= guessSeconds / Self.guessingShare else { return false }
        let breathed = end + samples(Self.breathSeconds)
        return buffer.samples.count >= breathed
            ? guessedAt - buffer.start < breathed : waited >= options.partialSeconds
    }

    /// Nothing where the guess is still the same. Speech ends at sample `end`.
    private func guess(_ end: Int) throws -> [StreamUpdate] {
        guessedAt = buffer.end
        let clock = ContinuousClock()
        let begin = clock.now
        let found = try session.guess(buffer.samples)
        guessSeconds = (clock.now - begin).milliseconds / 1000
        let hasEnded = buffer.samples.count >= end + samples(Self.breathSeconds)
        let sure = hasEnded ? found : Self.agreed(partial, found, stable)
        if Self.words(found).count > Self.words(partial).count { grownAt = buffer.end }
        guard found != partial || sure != stable else { return [] }
        partial = found
        stable = sure
        return [StreamUpdate(final: [], partial: found, seconds: seconds, stable: sure)]
    }

    private var seconds: Double { Double(buffer.end) / Double(rate) }

    private func samples(_ seconds: Double) -> Int { Int((seconds * Double(rate)).rounded(.toNearestOrEven)) }

    /// Where somebody speaks in the buffer; silence alone is dropped but for its end.
    private func ranges() -> [Range<Int>] {
        let shortest = min(options.pauseSeconds, Self.breathSeconds)
        let pauses = PauseOptions(minPauseSeconds: shortest, marginSeconds: 0)
        let found = Silence.speechRanges(buffer.samples, sampleRate: rate, pauses)
        if found.isEmpty {
            buffer.drop(max(0, buffer.samples.count - samples(max(options.pauseSeconds, Self.onsetSeconds))))
            guessedAt = buffer.end
            grownAt = buffer.end
        }
        return found
    }

    /// Whether the last guess heard much more speech than the one that grew, and gave no more words.
    private func isStalled(_ ranges: [Range<Int>]) -> Bool {
        let grown = grownAt - buffer.start, heard = guessedAt - buffer.start
        let spoken = ranges.map { max(0, min($0.upperBound, heard) - max($0.lowerBound, grown)) }.reduce(0, +)
        return Double(spoken) >= Self.stalledSeconds * Double(rate)
    }

    /// The best cut near a sample of the recording.
    private func cut(near place: Int) -> Int {
        let count = buffer.samples.count, near = samples(Self.nearSeconds), middle = place - buffer.start
        let earliest = min(count, max(near, middle - near)), latest = min(count, max(near, middle + near))
        return Silence.quietestCut(buffer.samples, earliest: earliest, latest: latest, sampleRate: rate)
    }

    /// Where to cut, if the buffer ends in a pause that is long enough behind speech up to `end`: in its middle.
    private func sentenceEnd(_ end: Int) -> Int? {
        let count = buffer.samples.count, settled = options.settledSeconds * Double(rate)
        var needed = Double(end) >= settled ? options.pauseSeconds : options.longPauseSeconds
        if Double(end) >= Self.longSentence * settled { needed = options.pauseSeconds / 2 }
        return Double(count - end) >= needed * Double(rate) ? (end + count) / 2 : nil
    }

    /// How a guess begins as the one before it did, in whole words (Liu et al. 2020, local agreement). Case and
    /// punctuation make no difference. What was stable before stays so while the words are the same.
    static func agreed(_ before: String, _ now: String, _ stable: String = "") -> String {
        let new = words(now)
        var shared = zip(words(before), new).prefix { $0.0.text == $0.1.text }.count
        let kept = words(stable).map(\.text)
        if kept == new.prefix(kept.count).map(\.text) { shared = max(shared, kept.count) }
        return shared == 0 ? "" : String(now[..<new[shared - 1].end])
    }

    /// Words without case and punctuation, and where each ends in the text; characters where there are no spaces.
    private static func words(_ text: String) -> [(text: String, end: String.Index)] {
        let isSpaced = SpeechTokenizer.hasSpaces(text, text)
        let pieces = isSpaced ? text.split(whereSeparator: \.isWhitespace) : text.indices.map { text[$0...$0] }
        return pieces.compactMap { piece in
            let plain = piece.lowercased().filter { $0.isLetter || $0.isNumber }
            guard !plain.isEmpty else { return nil }
            let end = piece.lastIndex { !".,;:!?-".contains($0) }.map { text.index(after: $0) } ?? piece.endIndex
            return (plain, end)
        }
    }
}
