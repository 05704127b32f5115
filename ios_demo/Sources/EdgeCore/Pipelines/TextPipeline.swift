import Foundation

/// What a text pipeline holds: a bundle with its engine, its tokenizer, and the record of what its outputs stand for.
struct TextParts<Head: Sendable>: Sendable {
    let bundle: ModelBundle
    let engine: any Engine
    let encoder: TextEncoder
    let head: Head

    /// Open the tokenizer of a bundle for a task, whose record `head` takes from the manifest's.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    init(_ bundle: ModelBundle, _ engine: any Engine, for task: BundleTask, head: (Postprocessing) -> Head?) throws {
        guard let head = head(bundle.manifest.postprocessing) else {
            throw InputError("expected a bundle for \(task.rawValue), found \(bundle.manifest.task.rawValue)")
        }
        (self.bundle, self.engine, self.head) = (bundle, engine, head)
        encoder = try TextEncoder(of: bundle)
    }
}

/// What text pipelines share: the encoder, and what one input looks like.
protocol TextPipeline: ProgramPipeline where Raw == RawText {
    associatedtype Head: Sendable

    var parts: TextParts<Head> { get }
}

extension TextPipeline {
    var bundle: ModelBundle { parts.bundle }
    var engine: any Engine { parts.engine }
    var encoder: TextEncoder { parts.encoder }
    var head: Head { parts.head }

    func prepare(_ raw: RawText) throws -> Prepared { try encoder.encode(raw) }

    func raw(from stored: StoredInput) throws -> RawText { try stored.text() }
}

/// What text pipelines share that divide one input into several runs: `windows` and the answer in all their outputs.
protocol WindowPipeline: TextPipeline {}

extension WindowPipeline {
    /// The first window.
    func prepare(_ raw: RawText) throws -> Prepared { try windows(raw)[0] }

    /// The answer of an input that is one window.
    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> Answer {
        try answer([outputs], [prepared])
    }
}

/// Labels that a bundle was not trained for: how well each, as a hypothesis, follows from the text.
public struct ZeroShotOptions: Equatable, Sendable {
    /// Where nobody says another: that of transformers' pipeline.
    public static let defaultTemplate = "This example is {}."
    static let maxLabels = 1000
    /// To choose from.
    public let labels: [String]
    /// A sentence in which each label stands for {}.
    public let template: String
    /// Any number of labels may hold, each by itself; else their scores sum to 1.
    public let multiLabel: Bool

    /// - Throws: `InputError`: there are no labels, too many or an empty one, or no place for them in the template.
    public init(labels: [String], template: String = ZeroShotOptions.defaultTemplate, multiLabel: Bool = false) throws {
        guard (1...Self.maxLabels).contains(labels.count), labels.allSatisfy({ !$0.isEmpty }) else {
            throw InputError("labels: expected 1 to \(Self.maxLabels), none of them empty")
        }
        guard template.contains("{}") else {
            throw InputError("template: expected a sentence with {} for the label, found \(shown(template))")
        }
        (self.labels, self.template, self.multiLabel) = (labels, template, multiLabel)
    }
}

/// Scores every label of a bundle for a text, a pair of texts, or token ids.
public final class TextClassifier: TextPipeline {
    let parts: TextParts<Classification>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .textClassification) {
            if case .classification(let head) = $0 { head } else { nil }
        }
    }

    /// Labels and probabilities, best first.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> ClassificationResult { try measured(raw) }

    /// Labels of the call's own, best first, with a model of natural language inference.
    ///
    /// - Throws: `InputError`: the bundle's labels are not those of such a model. `EngineError`: the model failed.
    public func run(_ text: String, _ options: ZeroShotOptions) throws -> ClassificationResult {
        _ = try Heads.entailment(of: head)
        let hypotheses = options.labels.map { options.template.replacingOccurrences(of: "{}", with: $0) }
        return try measured({ try hypotheses.map { try prepare(.pair(text, $0)) } }) { outputs, windows in
            let logits = try outputs.map { try Heads.onlyRow($0).map(Double.init) }
            return try Heads.zeroShot(logits, head, options, truncated: windows.contains(where: \.truncated))
        }
    }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ClassificationResult {
        try Heads.classify(outputs, head, truncated: prepared.truncated)
    }
}

/// Gives the score of a text, a pair of texts, or token ids.
public final class TextScorer: TextPipeline {
    let parts: TextParts<Score>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .textScoring) {
            if case .score(let head) = $0 { head } else { nil }
        }
    }

    /// The score.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> ScoreResult { try measured(raw) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ScoreResult {
        try Heads.score(outputs, head, truncated: prepared.truncated)
    }
}

/// Gives the embedding of a text, a pair of texts, or token ids.
public final class TextEmbedder: TextPipeline {
    let parts: TextParts<Embedding>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .textEmbedding) {
            if case .embedding(let head) = $0 { head } else { nil }
        }
    }

    /// The embedding.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> EmbeddingResult { try measured(raw) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> EmbeddingResult {
        try Heads.embed(outputs, truncated: prepared.truncated)
    }
}

extension TextEncoder {
    /// The encoder of a text bundle.
    init(of bundle: ModelBundle) throws {
        guard case .text(let spec) = bundle.manifest.preprocessing else {
            throw InputError("expected a bundle that takes text, found \(bundle.manifest.task.rawValue)")
        }
        let tokenizer = try spec.tokenizer.map { try TextTokenizer(try bundle.readBytes($0), file: $0) }
        try self.init(spec, tokenizer: tokenizer, programs: bundle.manifest.programs)
    }
}

/// What a masked text may ask for.
public struct FillOptions: Equatable, Sendable {
    /// Tokens that are told for each mask where nobody says how many.
    public static let defaultFills = 5
    static let (maxFills, maxTargets) = (100, 1000)
    /// How many tokens for each mask.
    public let top: Int
    /// The only ones that are wanted, each a token of the vocabulary or a word that is one; nil: all.
    public let targets: [String]?

    /// - Throws: `InputError`: a number is out of range.
    public init(top: Int = FillOptions.defaultFills, targets: [String]? = nil) throws {
        guard (1...Self.maxFills).contains(top) else {
            throw InputError("top: expected 1 to \(Self.maxFills) tokens, found \(top)")
        }
        guard (1...Self.maxTargets).contains(targets?.count ?? 1) else {
            throw InputError("targets: expected 1 to \(Self.maxTargets) words, found \(targets?.count ?? 0)")
        }
        (self.top, self.targets) = (top, targets)
    }
}

/// Predicts the masked tokens of a text, each by itself.
public final class MaskFiller: WindowPipeline {
    let parts: TextParts<MaskedToken>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .fillMask) {
            if case .fills(let head) = $0 { head } else { nil }
        }
    }

    /// Of each mask of a text the five best tokens.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> FillResult { try measured(raw) }

    /// Of each mask the best tokens.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ text: String, _ options: FillOptions? = nil) throws -> FillResult {
        try measured(.text(text)) { try fills($0, $1, options ?? FillOptions()) }
    }

    func windows(_ raw: RawText) throws -> [Prepared] {
        guard case .text(let text) = raw else {
            throw InputError("expected one text, found a pair of texts or token ids")
        }
        return try encoder.atMasks(text, head)
    }

    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> FillResult {
        try fills(outputs, windows, FillOptions())
    }

    private func fills(
        _ outputs: [[String: Tensor]], _ windows: [Prepared], _ options: FillOptions
    ) throws -> FillResult {
        let wanted = try options.targets.map { Set(try $0.map(encoder.token(of:))).sorted() }
        let found = try outputs.enumerated().flatMap { mask, output in
            let scores = Heads.softmax(try Heads.onlyRow(output).map(Double.init))
            let order = (wanted ?? Array(scores.indices)).sorted { (scores[$1], $0) < (scores[$0], $1) }
            let best = Array(order.prefix(options.top))
            return zip(best, encoder.texts(of: best)).map { token, text in
                Fill(token: token, text: text, score: scores[token], mask: mask)
            }
        }
        return FillResult(fills: found, truncated: windows[0].truncated)
    }
}
