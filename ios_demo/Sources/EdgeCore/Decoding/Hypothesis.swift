/// What a search finds: a transcript of one window, with its tokens' probabilities.
struct Hypothesis: Equatable {
    /// Text and timestamps, without prompt and end.
    var tokens: [Int]
    /// Of each token, and of the end where it was reached.
    var logProbabilities: [Double]
    /// The model said that the transcript is complete.
    var ended: Bool
    /// The search gave up since the same text came again and again.
    var looped: Bool

    /// Per token, the end counted as one even if it was not reached.
    var meanLogProbability: Double { logProbabilities.reduce(0, +) / Double(tokens.count + 1) }
}
