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

    /// The best label.
    public var label: String { entries[0].label }
    /// The best label's score.
    public var score: Double { entries[0].score }

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

/// One number.
public struct ScoreResult: Equatable, Sendable {
    /// Of the text, or of the pair.
    public let score: Double
    /// The input was too long and lost its end.
    public let truncated: Bool
    /// What the answer cost; nil where it was not measured.
    public internal(set) var statistics: Statistics?
}

/// An answer to a question: `text` stands from code point `start` to before `end` of the context. An empty one: there is
/// none.
public struct AnswerSpan: Equatable, Sendable {
    /// What stands there.
    public let text: String
    /// Its first code point.
    public let start: Int
    /// The code point behind its last.
    public let end: Int
    /// How probable it is.
    public internal(set) var score: Double
}

/// Answers to a question.
public struct SpanResult: Equatable, Sendable {
    /// Best first; none where the context has no token that could be one.
    public let answers: [AnswerSpan]
    /// What the answer cost; nil where it was not measured.
    public internal(set) var statistics: Statistics?
}

/// `text` stands from code point `start` to before `end` of a text, and has the label.
public struct Entity: Equatable, Sendable {
    /// What stands there.
    public let text: String
    /// What it is.
    public let label: String
    /// Its first code point.
    public let start: Int
    /// The code point behind its last.
    public let end: Int
    /// How probable it is.
    public let score: Double
}

/// Entities of a text.
public struct EntityResult: Equatable, Sendable {
    /// In the order of the text.
    public let entities: [Entity]
    /// What the answer cost; nil where it was not measured.
    public internal(set) var statistics: Statistics?
}

/// A token for a mask.
public struct Fill: Equatable, Sendable {
    /// Its id.
    public let token: Int
    /// What it writes by itself; ## and the like before a token that continues a word stay.
    public let text: String
    /// Its probability among all tokens.
    public let score: Double
    /// The number of the mask in the text, from 0 on.
    public let mask: Int
}

/// Tokens for the masks of a text.
public struct FillResult: Equatable, Sendable {
    /// Of each mask its best ones, best first; masks in the order of the text.
    public let fills: [Fill]
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
extension ScoreResult: Measured {}
extension SpanResult: Measured {}
extension EntityResult: Measured {}
extension FillResult: Measured {}
