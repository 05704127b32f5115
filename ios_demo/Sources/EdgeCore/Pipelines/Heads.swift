import Foundation

/// From a program's only output to an answer: what the tasks of all kinds of input share.
enum Heads {
    /// Labels and probabilities, best first; equal scores keep the bundle's order.
    ///
    /// - Throws: `EngineError`: the logits (1, number of labels) hold NaN or infinity.
    static func classify(_ outputs: [String: Tensor], _ head: Classification, truncated: Bool) throws
        -> ClassificationResult
    {
        classify(try onlyRow(outputs).map(Double.init), head, truncated: truncated)
    }

    /// The same of logits.
    static func classify(_ logits: [Double], _ head: Classification, truncated: Bool) -> ClassificationResult {
        let scores = head.activation == .softmax ? softmax(logits) : logits.map(sigmoid)
        let order = scores.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }
        return ClassificationResult(
            entries: order.map { ClassificationResult.Entry(label: head.labels[$0], score: scores[$0]) },
            truncated: truncated
        )
    }

    /// The labels of a call, best first; equal scores keep the call's order.
    ///
    /// The logits are of each label's hypothesis, of a model of natural language inference.
    ///
    /// - Throws: `InputError`: no label of the bundle says that a hypothesis follows.
    static func zeroShot(
        _ logits: [[Double]], _ head: Classification, _ options: ZeroShotOptions, truncated: Bool
    ) throws -> ClassificationResult {
        let entailment = try entailment(of: head)
        let contradiction = entailment == 0 ? head.labels.count - 1 : 0
        let scores =
            options.multiLabel || options.labels.count == 1
            ? logits.map { softmax([$0[contradiction], $0[entailment]])[1] } : softmax(logits.map { $0[entailment] })
        let order = scores.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }
        return ClassificationResult(
            entries: order.map { ClassificationResult.Entry(label: options.labels[$0], score: scores[$0]) },
            truncated: truncated
        )
    }

    /// The number of the label that says that a hypothesis follows.
    ///
    /// - Throws: `InputError`: the labels are not those of natural language inference.
    static func entailment(of head: Classification) throws -> Int {
        guard head.labels.count > 1, let found = head.labels.firstIndex(where: { $0.lowercased().hasPrefix("entail") })
        else {
            throw InputError(
                "labels of a call need a model of natural language inference, one of whose labels starts with 'entail', found "
                    + shown(head.labels.joined(separator: ", ")))
        }
        return found
    }

    /// The only output (1, D) as a vector.
    ///
    /// - Throws: `EngineError`: it holds NaN or infinity.
    static func embed(_ outputs: [String: Tensor], truncated: Bool) throws -> EmbeddingResult {
        EmbeddingResult(vector: try onlyRow(outputs), truncated: truncated)
    }

    /// The only output (1, 1) as a score.
    ///
    /// - Throws: `EngineError`: it holds NaN or infinity.
    static func score(_ outputs: [String: Tensor], _ head: Score, truncated: Bool) throws -> ScoreResult {
        let value = Double(try onlyRow(outputs)[0])
        return ScoreResult(score: head.isSigmoid ? sigmoid(value) : value, truncated: truncated)
    }

    /// Probabilities that sum to one, without overflow at any finite logits.
    static func softmax(_ logits: [Double]) -> [Double] {
        let largest = logits.max() ?? 0
        let exponents = logits.map { exp($0 - largest) }
        let sum = exponents.reduce(0, +)
        return exponents.map { $0 / sum }
    }

    /// A probability of its own, without overflow at any finite logit.
    static func sigmoid(_ logit: Double) -> Double {
        let small = exp(-abs(logit))
        return logit >= 0 ? 1 / (1 + small) : small / (1 + small)
    }

    static func onlyRow(_ outputs: [String: Tensor]) throws -> [Float] {
        guard outputs.count == 1, let output = outputs.first, let row = output.value.floats else {
            throw EngineError("expected one output of floats, found \(outputs.keys.sorted().joined(separator: ", "))")
        }
        guard row.allSatisfy(\.isFinite) else {
            throw EngineError(
                "the model's output '\(output.key)' holds NaN or infinity: run the self-test of the bundle")
        }
        return row
    }
}
