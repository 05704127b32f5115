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
}
