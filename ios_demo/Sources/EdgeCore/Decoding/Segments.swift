/// A segment of a window.
struct Span: Equatable {
    /// In seconds from the window's begin.
    let start: Double
    /// In seconds from the window's begin.
    let end: Double
    /// Where its text tokens stand among the window's tokens.
    let entries: [Int]
}

/// A window's tokens in segments, by the timestamps among them.
struct Spans: Equatable {
    /// In order; times never fall.
    let segments: [Span]
    /// In seconds, from where on the model left audio for the next window; nil: the window is done.
    let resume: Double?

    /// Of audio that sounds. Who speaks says 10 to 20, and 5 ideographs; models give less for music, noise and animals, and
    /// where they skip sentences.
    static let sparseLettersPerSecond = 4.0
    private static let usualLettersPerSecond = 10.0
    /// Of audio that sounds, in one segment: with less, sparse text is slow speech.
    private static let skippedSeconds = 5.0
    /// Of a segment's audio, before and behind where it is cut.
    private static let shortestPartSeconds = 1.0

    /// Segments as they are.
    init(_ segments: [Span], resume: Double? = nil) { (self.segments, self.resume) = (segments, resume) }

    /// Text without a timestamp before it starts where the last segment ended; text without one behind it lasts until the
    /// window ends, after `seconds`. Timestamps behind the window's end are moved there.
    init(_ tokens: [Int], _ spec: Transcription, seconds: Double) {
        let first = spec.tokens.firstTimestamp
        var segments: [Span] = []
        var entries: [Int] = []
        var start = 0.0
        for (index, token) in tokens.enumerated() {
            guard token >= first else {
                entries.append(index)
                continue
            }
            let time = min(seconds, Double(token - first) * spec.secondsPerTimestamp)
            if !entries.isEmpty {
                segments.append(Span(start: start, end: max(start, time), entries: entries))
                entries = []
            }
            start = max(start, time)
        }
        if !entries.isEmpty { segments.append(Span(start: start, end: max(start, seconds), entries: entries)) }
        let endsInPair = tokens.count >= 2 && tokens.suffix(2).allSatisfy { $0 >= first }
        self.segments = segments
        resume = !segments.isEmpty && endsInPair && start < seconds ? start : nil
    }

    /// The segments up to where the model skipped sentences, to be heard again from there on; nil: nothing is cut.
    ///
    /// The model lets the segment before them last until they end, so that there is far too little text for the audio. It is
    /// cut in the pause that is nearest to where its text ends at the usual rate. `letters` are those of each segment's text,
    /// `sounding` is in seconds, in order: the audio between its pauses.
    func cutAtSkipped(letters: [Int], _ sounding: [Range<Double>]) -> Spans? {
        for (index, span) in segments.enumerated() {
            let count = Double(letters[index])
            let seconds = sounding.reduce(0.0) {
                $0 + max(0, min($1.upperBound, span.end) - max($1.lowerBound, span.start))
            }
            guard seconds >= Self.skippedSeconds, count < Self.sparseLettersPerSecond * seconds else { continue }
            let (first, last) = (span.start + Self.shortestPartSeconds, span.end - Self.shortestPartSeconds)
            let expected = span.start + count / Self.usualLettersPerSecond
            let pauses = sounding.map(\.upperBound).filter { first <= $0 && $0 <= last }
            guard let resume = pauses.min(by: { abs($0 - expected) < abs($1 - expected) }) else { continue }
            let cut = Span(start: span.start, end: resume, entries: span.entries)
            return Spans(segments[..<index] + [cut], resume: resume)
        }
        return nil
    }

    /// Letters and digits: a note and a full stop are none.
    static func letters(of text: String) -> Int { text.filter { $0.isLetter || $0.isNumber }.count }

    /// A time that the model gives is taken for that of a pause so near, in seconds.
    private static let nearPauseSeconds = 0.4

    /// The segments so that they start behind, and end before, the pauses that their times lie in or near.
    ///
    /// Models often let a segment start where the last one ended, before the pause between them. `sounding` is in seconds,
    /// in order: the audio between its pauses.
    func fitted(to sounding: [Range<Double>]) -> [Span] {
        let begins = [0] + sounding.map(\.upperBound)
        let ends = sounding.map(\.lowerBound) + [.infinity]
        let pauses = zip(begins, ends).map { (begin: $0, end: $1) }
        var fitted: [Span] = []
        for span in segments {
            let least = fitted.last?.end ?? 0
            let behind = Self.nearest(pauses, span.start).end
            let before = Self.nearest(pauses, span.end).begin
            let start = max(least, behind < span.end ? behind : span.start)
            let end = max(start, before > start ? before : span.end)
            fitted.append(Span(start: start, end: end, entries: span.entries))
        }
        return fitted
    }

    /// The pause at or near a time, and else the time itself as one without length.
    private static func nearest(_ pauses: [(begin: Double, end: Double)], _ time: Double) -> (
        begin: Double, end: Double
    ) {
        let distance = { (pause: (begin: Double, end: Double)) in max(pause.begin - time, time - pause.end, 0) }
        guard let pause = pauses.min(by: { distance($0) < distance($1) }), distance(pause) <= nearPauseSeconds else {
            return (time, time)
        }
        return pause
    }
}
