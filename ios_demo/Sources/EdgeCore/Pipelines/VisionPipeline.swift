import Foundation

/// Turns an image file's bytes into upright, opaque pixels: each system brings its own decoder.
public typealias ImageDecoder = @Sendable (Data) throws -> Pixels

/// Scores every label of a bundle for an image.
public final class ImageClassifier: ProgramPipeline {
    let bundle: ModelBundle
    let engine: any Engine
    private let encoder: ImageEncoder
    private let head: Classification
    private let decoder: ImageDecoder

    /// A pipeline that opens recorded images with a decoder.
    ///
    /// - Throws: `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder) throws {
        guard case .image(let spec) = bundle.manifest.preprocessing,
            case .classification(let head) = bundle.manifest.postprocessing
        else {
            throw InputError("expected a bundle for image-classification, found \(bundle.manifest.task.rawValue)")
        }
        self.bundle = bundle
        self.engine = engine
        self.head = head
        self.decoder = decoder
        encoder = ImageEncoder(spec)
    }

    /// Labels and probabilities, best first.
    ///
    /// - Throws: `InputError`: the image cannot be used. `EngineError`: the model failed.
    public func run(_ pixels: Pixels) throws -> ClassificationResult { try measured(pixels) }

    /// As `run`, for an image file's bytes.
    public func run(_ file: Data) throws -> ClassificationResult { try run(try decoder(file)) }

    func prepare(_ raw: Pixels) throws -> Prepared {
        Prepared(
            program: Manifest.imageProgram, inputs: [Manifest.imageInput: try encoder.encode(raw)], truncated: false)
    }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ClassificationResult {
        try Heads.classify(outputs, head, truncated: prepared.truncated)
    }

    func raw(from stored: StoredInput) throws -> Pixels { try decoder(try bundle.readBytes(try stored.image())) }

    func restored(_ recorded: Tensor) -> Tensor {
        guard case .uint8(let levels) = recorded.values else { return recorded }
        return encoder.normalised(levels)
    }
}

/// Gives the embedding of an image.
public final class ImageEmbedder: ProgramPipeline {
    let bundle: ModelBundle
    let engine: any Engine
    private let encoder: ImageEncoder
    private let decoder: ImageDecoder

    /// A pipeline that opens recorded images with a decoder.
    ///
    /// - Throws: `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder) throws {
        guard case .image(let spec) = bundle.manifest.preprocessing, case .embedding = bundle.manifest.postprocessing
        else {
            throw InputError("expected a bundle for image-embedding, found \(bundle.manifest.task.rawValue)")
        }
        self.bundle = bundle
        self.engine = engine
        self.decoder = decoder
        encoder = ImageEncoder(spec)
    }

    /// The embedding.
    ///
    /// - Throws: `InputError`: the image cannot be used. `EngineError`: the model failed.
    public func run(_ pixels: Pixels) throws -> EmbeddingResult { try measured(pixels) }

    /// As `run`, for an image file's bytes.
    public func run(_ file: Data) throws -> EmbeddingResult { try run(try decoder(file)) }

    func prepare(_ raw: Pixels) throws -> Prepared {
        Prepared(
            program: Manifest.imageProgram, inputs: [Manifest.imageInput: try encoder.encode(raw)], truncated: false)
    }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> EmbeddingResult {
        try Heads.embed(outputs, truncated: prepared.truncated)
    }

    func raw(from stored: StoredInput) throws -> Pixels { try decoder(try bundle.readBytes(try stored.image())) }

    func restored(_ recorded: Tensor) -> Tensor {
        guard case .uint8(let levels) = recorded.values else { return recorded }
        return encoder.normalised(levels)
    }
}
