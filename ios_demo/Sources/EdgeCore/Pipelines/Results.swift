/// What one answer cost.
public struct Statistics: Equatable, Sendable {
    /// From raw input to the program's inputs.
    public let preprocessMs: Double
    /// Of the program.
    public let runMs: Double
    /// From outputs to the answer.
    public let postprocessMs: Double
}

/// Labels with their scores, best first.
public struct ClassificationResult: Equatable, Sendable {
    /// A label of the bundle with its score.
    public struct Entry: Equatable, Sendable {
        /// The label's text.
        public let label: String
        /// Its probability.
        public let score: Double
    }

    /// Every label of the bundle, or the best of them after `top`.
    public let entries: [Entry]
    /// The input was too long and lost its end.
    public let truncated: Bool
    /// What the answer cost; nil where it was not measured.
    public internal(set) var statistics: Statistics?

    /// The same answer with its best labels, or all where there are fewer.
    public func top(_ count: Int) -> ClassificationResult {
        ClassificationResult(
            entries: Array(entries.prefix(max(1, count))), truncated: truncated, statistics: statistics)
    }
}

/// An embedding.
public struct EmbeddingResult: Equatable, Sendable {
    /// (D) the components.
    public let vector: [Float]
    /// The input was too long and lost its end.
    public let truncated: Bool
    /// What the answer cost; nil where it was not measured.
    public internal(set) var statistics: Statistics?
}

/// An answer with room for what it cost.
protocol Measured {
    var statistics: Statistics? { get set }
}

extension ClassificationResult: Measured {}
extension EmbeddingResult: Measured {}
