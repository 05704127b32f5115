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

    /// A window that is done.
    init(_ segments: [Span]) { (self.segments, resume) = (segments, nil) }

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
