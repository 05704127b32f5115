import Foundation

/// One recording being transcribed, window by window; not for several threads at once.
final class SpeechSession {
    private(set) var language: String?
    private(set) var statistics = SpeechStatistics()
    /// Shorter pauses are parts of words: the closure of a plosive lasts about 0.1 s.
    private static let pausesBetweenWords = PauseOptions(minPauseSeconds: 0.2, marginSeconds: 0.04)
    /// Up to this sample of the recording, audio is not heard a third time.
    private var heardAgain = 0
    private let model: SpeechModel
    private let options: TranscribeOptions

    /// Begin.
    ///
    /// - Throws: `InputError`: the model does not know the language or the task that the options ask for.
    init(_ model: SpeechModel, _ options: TranscribeOptions) throws {
        try Prompt.check(options, model.spec.tokens)
        self.model = model
        self.options = options
        language = model.spec.tokens.languages.isEmpty ? "en" : options.language
    }

    /// Transcribe the first window of a buffer and drop it, or drop silence. The buffer is not empty.
    func transcribeNext(_ buffer: inout AudioBuffer) throws -> [Segment] {
        let window = SpeechWindow.next(
            buffer.samples, longest: model.audio.windowSamples, sampleRate: model.audio.sampleRate)
        if window.hasSpeech { return try transcribeFirst(&buffer, window.end) }
        buffer.drop(window.end)
        return []
    }

    /// Transcribe the buffer's first samples, at most a window's, and drop those that are done with.
    func transcribeFirst(_ buffer: inout AudioBuffer, _ size: Int) throws -> [Segment] {
        let rate = model.audio.sampleRate
        let samples = Array(buffer.samples.prefix(size))
        let sounding = sounding(samples)
        let decoder = try encode(samples)
        let decoded = try decode(decoder, options, sounding)
        statistics.windows += 1
        statistics.tokens += decoded.hypothesis.tokens.count
        var spans = Spans(decoded.hypothesis.tokens, model.spec, seconds: Double(samples.count) / Double(rate))
        if options.timestamps, buffer.start >= heardAgain,
            let cut = spans.cutAtSkipped(letters: try letters(spans, decoded), sounding)
        {
            heardAgain = buffer.start + size
            spans = cut
        }
        let offset = Double(buffer.start) / Double(rate)
        let fitted = options.timestamps ? spans.fitted(to: sounding) : spans.segments
        let segments = try fitted.compactMap { try segment($0, decoded, offset: offset) }
        let resume = spans.resume.map { Int(($0 * Double(rate)).rounded(.toNearestOrEven)) }
        if let resume, SpeechWindow.isWorthRetry(samples, done: resume, sampleRate: rate) {
            buffer.drop(resume)
        } else {
            buffer.drop(size)
        }
        return segments
    }

    private func letters(_ spans: Spans, _ decoded: Decoded) throws -> [Int] {
        try spans.segments.map { Spans.letters(of: try model.text($0.entries.map { decoded.hypothesis.tokens[$0] })) }
    }

    /// The audio between its pauses, in seconds.
    private func sounding(_ samples: [Float]) -> [Range<Double>] {
        let rate = Double(model.audio.sampleRate)
        return Silence.speechRanges(samples, sampleRate: model.audio.sampleRate, Self.pausesBetweenWords)
            .map { Double($0.lowerBound) / rate..<Double($0.upperBound) / rate }
    }

    /// What samples (N) may say, found quickly; nothing is remembered of it.
    func guess(_ samples: [Float]) throws -> String {
        guard !Silence.isSilent(samples, sampleRate: model.audio.sampleRate) else { return "" }
        var quick = options
        quick.timestamps = false
        return try decode(try encode(samples), quick, sounding(samples)).text.stripped()
    }

    /// All segments of a recording of so many samples as its transcript.
    func transcript(_ segments: [Segment], samples: Int) -> Transcript {
        Transcript(
            text: SpeechTokenizer.join(segments.map(\.text)),
            language: language,
            segments: segments,
            duration: Double(samples) / Double(model.audio.sampleRate),
            statistics: statistics
        )
    }

    private func encode(_ samples: [Float]) throws -> any SpeechDecoder {
        let clock = ContinuousClock()
        let start = clock.now
        let bucket = try model.bucket(for: samples.count)
        let mel = try model.mel(LogMel.leveled(samples), bucket)
        let ready = clock.now
        let decoder = try model.decoder(bucket)
        try decoder.encode(mel)
        statistics.melMs += (ready - start).milliseconds
        statistics.encodeMs += (clock.now - ready).milliseconds
        return decoder
    }

    private func decode(
        _ decoder: any SpeechDecoder, _ options: TranscribeOptions, _ sounding: [Range<Double>]
    ) throws -> Decoded {
        let clock = ContinuousClock()
        let start = clock.now
        defer { statistics.decodeMs += (clock.now - start).milliseconds }
        let tokens = model.spec.tokens
        if language == nil { language = try detectLanguage(decoder, tokens) }
        let prompt = try Prompt(tokens, options, language: language ?? "en")
        let search = Greedy(
            decoder: decoder,
            context: try Context(decoder, prompt),
            rules: LogitRules(model.spec, timestamps: options.timestamps),
            tokens: tokens,
            maxTokens: options.maxTokens,
            stretches: sounding.count
        )
        let seconds = sounding.reduce(0) { $0 + $1.upperBound - $1.lowerBound }
        return try Decoded(search, model.tokenizer, options, soundingSeconds: seconds)
    }

    /// nil where the span has no text.
    private func segment(_ span: Span, _ decoded: Decoded, offset: Double) throws -> Segment? {
        let text = try model.text(span.entries.map { decoded.hypothesis.tokens[$0] })
        guard !text.isEmpty else { return nil }
        return Segment(
            start: Self.milliseconds(offset + span.start),
            end: Self.milliseconds(offset + span.end),
            text: text,
            meanLogProbability: decoded.hypothesis.meanLogProbability,
            noSpeechProbability: decoded.noSpeechProbability,
            isDoubtful: decoded.isDoubtful
        )
    }

    /// Milliseconds are enough, and sums that mean the same time become the same number.
    private static func milliseconds(_ seconds: Double) -> Double {
        (seconds * 1000).rounded(.toNearestOrEven) / 1000
    }
}
