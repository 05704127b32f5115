import Foundation

/// Turns an image file's bytes into upright, opaque pixels: each system brings its own decoder.
public typealias ImageDecoder = @Sendable (Data) throws -> Pixels

/// What an image pipeline holds: a bundle with its engine, what makes tensors of pixels, what opens files, and the record
/// of what its outputs stand for.
struct ImageParts<Head: Sendable>: Sendable {
    let bundle: ModelBundle
    let engine: any Engine
    let encoder: ImageEncoder
    let decoder: ImageDecoder
    let head: Head

    /// For a task, whose record `head` takes from the manifest's.
    ///
    /// - Throws: `InputError`: the bundle is for another task.
    init(
        _ bundle: ModelBundle, _ engine: any Engine, for task: BundleTask, decoder: @escaping ImageDecoder,
        head: (Postprocessing) -> Head?
    ) throws {
        guard case .image(let spec) = bundle.manifest.preprocessing, let head = head(bundle.manifest.postprocessing)
        else {
            throw InputError("expected a bundle for \(task.rawValue), found \(bundle.manifest.task.rawValue)")
        }
        (self.bundle, self.engine, self.decoder, self.head) = (bundle, engine, decoder, head)
        encoder = ImageEncoder(spec)
    }
}

/// What image pipelines share: how pixels become the program's input, whether given or recorded.
protocol ImagePipeline: ProgramPipeline where Raw == Pixels {
    associatedtype Head: Sendable

    var parts: ImageParts<Head> { get }
}

extension ImagePipeline {
    var bundle: ModelBundle { parts.bundle }
    var engine: any Engine { parts.engine }

    func prepare(_ raw: Pixels) throws -> Prepared {
        let inputs = [Manifest.imageInput: try parts.encoder.encode(raw)]
        return Prepared(program: Manifest.imageProgram, inputs: inputs, truncated: false)
    }

    func raw(from stored: StoredInput) throws -> Pixels {
        try parts.decoder(try bundle.readBytes(try stored.image()))
    }

    func restored(_ recorded: Tensor) -> Tensor {
        guard case .uint8(let levels) = recorded.values else { return recorded }
        return parts.encoder.normalised(levels)
    }
}

/// Scores every label of a bundle for an image.
public final class ImageClassifier: ImagePipeline {
    let parts: ImageParts<Classification>

    /// A pipeline that opens recorded images with a decoder.
    ///
    /// - Throws: `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder) throws {
        parts = try ImageParts(bundle, engine, for: .imageClassification, decoder: decoder) {
            if case .classification(let head) = $0 { head } else { nil }
        }
    }

    /// Labels and probabilities, best first.
    ///
    /// - Throws: `InputError`: the image cannot be used. `EngineError`: the model failed.
    public func run(_ pixels: Pixels) throws -> ClassificationResult { try measured(pixels) }

    /// As `run`, for an image file's bytes.
    public func run(_ file: Data) throws -> ClassificationResult { try run(try parts.decoder(file)) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ClassificationResult {
        try Heads.classify(outputs, parts.head, truncated: prepared.truncated)
    }
}

/// Gives the embedding of an image.
public final class ImageEmbedder: ImagePipeline {
    let parts: ImageParts<Embedding>

    /// A pipeline that opens recorded images with a decoder.
    ///
    /// - Throws: `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder) throws {
        parts = try ImageParts(bundle, engine, for: .imageEmbedding, decoder: decoder) {
            if case .embedding(let head) = $0 { head } else { nil }
        }
    }

    /// The embedding.
    ///
    /// - Throws: `InputError`: the image cannot be used. `EngineError`: the model failed.
    public func run(_ pixels: Pixels) throws -> EmbeddingResult { try measured(pixels) }

    /// As `run`, for an image file's bytes.
    public func run(_ file: Data) throws -> EmbeddingResult { try run(try parts.decoder(file)) }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> EmbeddingResult {
        try Heads.embed(outputs, truncated: prepared.truncated)
    }
}
