/// Audio that has arrived and is not yet transcribed.
struct AudioBuffer {
    /// The sample of the whole recording at which the buffer starts.
    private(set) var start = 0
    /// (N) at the model's rate.
    private(set) var samples: [Float] = []

    /// The sample of the whole recording at which the buffer ends.
    var end: Int { start + samples.count }

    /// Add what follows.
    mutating func append(_ more: some Sequence<Float>) { samples += more }

    /// Forget the first samples.
    mutating func drop(_ count: Int) {
        samples.removeFirst(count)
        start += count
    }
}

/// Long audio in windows that a model can transcribe at once, cut where nobody speaks; long silence is skipped.
struct SpeechWindow: Equatable {
    /// The first samples of a buffer, up to here.
    let end: Int
    /// To be transcribed, or to be skipped.
    let hasSpeech: Bool

    /// A pause that no window has inside: transcribing it costs time, and it is where models make up text.
    private static let skippedPause = PauseOptions(minPauseSeconds: 3, marginSeconds: 0.5)
    /// Audio that a window left over is transcribed again if there is so much of it, and so much before it.
    private static let shortestRetrySeconds = 1

    /// What to do with a buffer next: all that is left, or more than `longest` samples of it.
    ///
    /// A buffer of more than `longest` samples is cut in the best pause of its second half.
    static func next(_ samples: [Float], longest: Int, sampleRate: Int) -> SpeechWindow {
        let ranges = Silence.speechRanges(samples, sampleRate: sampleRate, skippedPause)
        guard let first = ranges.first else { return SpeechWindow(end: samples.count, hasSpeech: false) }
        let pause = Int(skippedPause.minPauseSeconds * Double(sampleRate))
        guard first.lowerBound < pause else { return SpeechWindow(end: first.lowerBound, hasSpeech: false) }
        var end = first.upperBound
        if ranges.count == 1, samples.count - end < pause { end = samples.count }
        if end > longest {
            end = Silence.quietestCut(
                Array(samples.prefix(longest)), earliest: longest / 2, latest: longest, sampleRate: sampleRate)
        }
        return SpeechWindow(end: end, hasSpeech: true)
    }

    /// Whether what a window left over from sample `done` on is to be transcribed again.
    static func isWorthRetry(_ samples: [Float], done: Int, sampleRate: Int) -> Bool {
        let shortest = shortestRetrySeconds * sampleRate
        return done >= shortest && samples.count - done >= shortest
            && !Silence.isSilent(Array(samples[done...]), sampleRate: sampleRate)
    }
}
