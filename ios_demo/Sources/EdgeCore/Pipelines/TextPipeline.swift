/// Scores every label of a bundle for a text, a pair of texts, or token ids.
public final class TextClassifier: ProgramPipeline {
    let bundle: ModelBundle
    let engine: any Engine
    private let encoder: TextEncoder
    private let head: Classification

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        guard case .classification(let head) = bundle.manifest.postprocessing else {
            throw InputError("expected a bundle for text-classification, found \(bundle.manifest.task.rawValue)")
        }
        self.bundle = bundle
        self.engine = engine
        self.head = head
        encoder = try TextEncoder(of: bundle)
    }

    /// Labels and probabilities, best first.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> ClassificationResult { try measured(raw) }

    func prepare(_ raw: RawText) throws -> Prepared { try encoder.encode(raw) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ClassificationResult {
        try Heads.classify(outputs, head, truncated: prepared.truncated)
    }

    func raw(from stored: StoredInput) throws -> RawText { try stored.text() }
}

/// Gives the score of a text, a pair of texts, or token ids.
public final class TextScorer: ProgramPipeline {
    let bundle: ModelBundle
    let engine: any Engine
    private let encoder: TextEncoder
    private let head: Score

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        guard case .score(let head) = bundle.manifest.postprocessing else {
            throw InputError("expected a bundle for text-scoring, found \(bundle.manifest.task.rawValue)")
        }
        self.bundle = bundle
        self.engine = engine
        self.head = head
        encoder = try TextEncoder(of: bundle)
    }

    /// The score.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> ScoreResult { try measured(raw) }

    func prepare(_ raw: RawText) throws -> Prepared { try encoder.encode(raw) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ScoreResult {
        try Heads.score(outputs, head, truncated: prepared.truncated)
    }

    func raw(from stored: StoredInput) throws -> RawText { try stored.text() }
}

/// Gives the embedding of a text, a pair of texts, or token ids.
public final class TextEmbedder: ProgramPipeline {
    let bundle: ModelBundle
    let engine: any Engine
    private let encoder: TextEncoder

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        guard case .embedding = bundle.manifest.postprocessing else {
            throw InputError("expected a bundle for text-embedding, found \(bundle.manifest.task.rawValue)")
        }
        self.bundle = bundle
        self.engine = engine
        encoder = try TextEncoder(of: bundle)
    }

    /// The embedding.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> EmbeddingResult { try measured(raw) }

    func prepare(_ raw: RawText) throws -> Prepared { try encoder.encode(raw) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> EmbeddingResult {
        try Heads.embed(outputs, truncated: prepared.truncated)
    }

    func raw(from stored: StoredInput) throws -> RawText { try stored.text() }
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
