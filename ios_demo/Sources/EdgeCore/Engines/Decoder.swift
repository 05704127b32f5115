/// What follows a token.
public struct DecoderOutput: Equatable, Sendable {
    /// (V) what may come next.
    public let logits: [Float]

    /// The logits behind a token.
    public init(logits: [Float]) { self.logits = logits }
}

/// One bucket's programs with their caches. Not for several threads at once.
///
/// The self-attention cache has L rows, each of which holds one token that was fed. A hypothesis is the set of rows that its
/// tokens lie in: a mask (L) holds 0 for these and a large negative number for all others.
public protocol SpeechDecoder: AnyObject {
    /// L.
    var rows: Int { get }

    /// P, the most tokens that `prefill` takes.
    var prefillTokens: Int { get }

    /// Encode a recording, mel (1, nMels, 2 T); everything fed before is forgotten.
    func encode(_ mel: Tensor) throws

    /// Feed one token, written to `row`; it sees the rows of `mask` and itself.
    func step(_ token: Int, position: Int, row: Int, mask: [Float]) throws -> DecoderOutput

    /// Feed up to P tokens at once: the first at `position` into `row`, the others right behind it.
    ///
    /// Each sees the rows of `mask`, those before it in this call, and itself.
    ///
    /// - Returns: what follows the tokens number `wanted.0` and `wanted.1` of this call.
    func prefill(
        _ tokens: [Int], position: Int, row: Int, mask: [Float], wanted: (Int, Int)
    ) throws -> (DecoderOutput, DecoderOutput)
}

/// What decoders check and lay out in the same way, whoever keeps their caches.
enum DecoderInputs {
    /// Refuses rows that do not lie in the cache, and masks of another length.
    static func check(row: Int, count: Int, mask: [Float], rows: Int) throws {
        guard row >= 0, row <= rows - count else {
            throw InputError(
                "expected \(count) of the cache's slots 0 to \(rows - 1), found \(row) to \(row + count - 1)")
        }
        guard mask.count == rows else { throw InputError("mask: expected \(rows) values, found \(mask.count)") }
    }

    /// Refuses token counts that `prefill` does not take.
    static func check(_ tokens: [Int], wanted: (Int, Int), size: Int) throws {
        guard (1...size).contains(tokens.count) else {
            throw InputError("prefill: expected 1 to \(size) tokens, found \(tokens.count)")
        }
        guard tokens.indices.contains(wanted.0), tokens.indices.contains(wanted.1) else {
            throw InputError("prefill: expected wanted tokens of 0 to \(tokens.count - 1), found \(wanted)")
        }
    }

    /// The tokens and their positions as `prefill` takes them, (P) each.
    ///
    /// Padding repeats the last token, so that its id and its position exist; it comes last, where no token sees it.
    static func padded(_ tokens: [Int], position: Int, size: Int) -> [String: Tensor] {
        let indices = (0..<size).map { min($0, tokens.count - 1) }
        return ["tokens": integers(indices.map { tokens[$0] }), "positions": integers(indices.map { position + $0 })]
    }

    static func integers(_ values: [Int]) -> Tensor { Tensor(values.map(Int32.init), shape: [values.count]) }

    static func floats(_ values: [Float]) -> Tensor { Tensor(values, shape: [values.count]) }

    /// The logits of a program's answer, one output for each of `count` wanted tokens.
    static func answers(_ outputs: [String: Tensor], count: Int) throws -> [DecoderOutput] {
        guard let logits = outputs["logits"]?.floats else { throw EngineError("the decoder gave no logits") }
        let size = logits.count / count
        return (0..<count).map { DecoderOutput(logits: Array(logits[$0 * size..<($0 + 1) * size])) }
    }

    static let deaf = EngineError("the speech decoder has encoded nothing yet: call encode first")
}
