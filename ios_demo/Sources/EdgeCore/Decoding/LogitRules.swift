import Foundation

/// Which tokens may come next (Radford et al. 2022, sections 2.3 and 4.5).
///
/// The vocabulary is in the order of all Whisper models: text, the end, other special tokens, timestamps. With timestamps
/// these come in pairs, except before the end; never fall; and are taken as soon as all of them together are likelier than
/// any one text token.
struct LogitRules: Sendable {
    private let spec: Transcription
    private let timestamps: Bool
    private let latestStart: Int

    /// The rules of a manifest; `timestamps` says whether times are asked for.
    init(_ spec: Transcription, timestamps: Bool) {
        self.spec = spec
        self.timestamps = timestamps
        let steps = (spec.maxInitialTimestamp / spec.secondsPerTimestamp).rounded(.toNearestOrEven)
        latestStart = spec.tokens.firstTimestamp + Int(steps)
    }

    /// Set the logits (V) of tokens that may not follow the tokens `said` (without the prompt) to -inf.
    func apply(_ logits: inout [Float], said: [Int]) {
        let (end, first) = (spec.tokens.end, spec.tokens.firstTimestamp)
        for token in spec.suppress { logits[token] = -.infinity }
        // Special tokens stand in prompts only.
        forbid(&logits, end + 1, timestamps ? first : logits.count)
        if said.isEmpty {
            for token in spec.suppressAtStart { logits[token] = -.infinity }
        }
        if timestamps { applyTimestamps(&logits, said) }
    }

    /// The log of the sum of exp(logits), which turns logits (V) into log probabilities.
    ///
    /// - Throws: `EngineError`: the logits hold NaN or infinity.
    func logNormalizer(_ logits: [Float], largest: Float) throws -> Double {
        let result = Self.logSum(logits[...], largest)
        guard result.isFinite else { throw Self.notFinite }
        return result
    }

    static let notFinite = EngineError("the decoder's logits hold NaN or infinity: run the self-test of the bundle")

    private func applyTimestamps(_ logits: inout [Float], _ said: [Int]) {
        let (end, first) = (spec.tokens.end, spec.tokens.firstTimestamp)
        guard let last = said.last else {
            forbid(&logits, 0, first)
            forbid(&logits, latestStart + 1, logits.count)
            return
        }
        let endsInTime = last >= first
        let endsInPair = endsInTime && (said.count < 2 || said[said.count - 2] >= first)
        if endsInPair {
            forbid(&logits, first, logits.count)
        } else if endsInTime {
            forbid(&logits, 0, end)
        }
        if let latest = said.last(where: { $0 >= first }) {
            // A segment that has begun may not end where it starts; the one that follows may begin where it ended.
            forbid(&logits, first, endsInTime && !endsInPair ? latest : latest + 1)
        }
        preferTimestamps(&logits)
    }

    private func preferTimestamps(_ logits: inout [Float]) {
        let first = spec.tokens.firstTimestamp
        guard let latest = logits[first...].max(), latest > -.infinity, let text = logits[..<first].max() else {
            return
        }
        if Self.logSum(logits[first...], latest) > Double(text) { forbid(&logits, 0, first) }
    }

    private func forbid(_ logits: inout [Float], _ start: Int, _ end: Int) {
        for token in stride(from: min(start, logits.count), to: min(end, logits.count), by: 1) {
            logits[token] = -.infinity
        }
    }

    private static func logSum(_ logits: ArraySlice<Float>, _ largest: Float) -> Double {
        let total = logits.reduce(0.0) { $0 + Double(exp($1 - largest)) }
        return total > 0 ? Double(largest) + log(total) : .nan
    }
}
