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

/// What is embedded, or compared.
enum ImageOrText {
    /// An image, and the texts that it is compared with, each with the label that it stands for, if it is one's.
    case photo(Pixels, [(text: String, label: String?)])
    case words(String)
}

/// An embedding, labels with scores, or a score.
struct ComparedResult: Measured {
    var found: any Measured
    var statistics: Statistics? {
        get { found.statistics }
        set { found.statistics = newValue }
    }
}

/// Embeds images and texts into one space, and compares them there. A text is embedded once, and kept for later calls.
public final class ImageTextComparer: ProgramPipeline {
    /// Of labels that a call names where it says nothing else: that of transformers' pipeline.
    public static let defaultTemplate = "This is a photo of {}."

    let bundle: ModelBundle
    let engine: any Engine
    private let images: ImageEncoder
    private let texts: TextEncoder
    private let decoder: ImageDecoder
    private let head: Similarity

    /// A pipeline that opens recorded images with a decoder.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder) throws {
        guard case .imageText(let spec) = bundle.manifest.preprocessing,
            case .similarity(let head) = bundle.manifest.postprocessing
        else {
            throw InputError("expected a bundle for image-text, found \(bundle.manifest.task.rawValue)")
        }
        (self.bundle, self.decoder, self.head) = (bundle, decoder, head)
        self.engine = KeepingEngine(engine)
        images = ImageEncoder(spec.image)
        let tokenizer = try spec.text.tokenizer.map { try TextTokenizer(try bundle.readBytes($0), file: $0) }
        texts = try TextEncoder(spec.text, tokenizer: tokenizer, programs: bundle.manifest.textPrograms)
    }

    /// The embedding of an image, of norm 1.
    ///
    /// - Throws: `InputError`: the image cannot be used. `EngineError`: the model failed.
    public func embed(_ pixels: Pixels) throws -> EmbeddingResult { try asked(.photo(pixels, [])) }

    /// The embedding of a text, of norm 1.
    ///
    /// - Throws: `InputError`: the text cannot be used. `EngineError`: the model failed.
    public func embed(_ text: String) throws -> EmbeddingResult { try asked(.words(text)) }

    /// Labels with their scores for an image, best first; `template` is a sentence in which each label stands for {}.
    ///
    /// - Throws: `InputError`: an input cannot be used. `EngineError`: the model failed.
    public func classify(
        _ pixels: Pixels, labels: [String], template: String = ImageTextComparer.defaultTemplate
    ) throws -> ClassificationResult {
        let options = try ZeroShotOptions(labels: labels, template: template)  // which checks both
        return try asked(.photo(pixels, Self.sentences(options)))
    }

    /// The cosine of an image and a text.
    ///
    /// - Throws: `InputError`: an input cannot be used. `EngineError`: the model failed.
    public func score(_ pixels: Pixels, query: String) throws -> ScoreResult {
        try asked(.photo(pixels, [(query, nil)]))
    }

    private static func sentences(_ options: ZeroShotOptions) -> [(text: String, label: String?)] {
        options.labels.map { (options.template.replacingOccurrences(of: "{}", with: $0), $0) }
    }

    private func asked<Found>(_ raw: ImageOrText) throws -> Found {
        guard let found = try measured(raw).found as? Found else {
            throw EngineError("another answer than was asked for")
        }
        return found
    }

    func prepare(_ raw: ImageOrText) throws -> Prepared {
        switch raw {
        case .photo(let pixels, _):
            let inputs = [Manifest.imageInput: try images.encode(pixels)]
            return Prepared(program: Manifest.imageProgram, inputs: inputs, truncated: false)
        case .words(let text): return try texts.encode(.text(text))
        }
    }

    /// The image, and each text that it is compared with.
    func windows(_ raw: ImageOrText) throws -> [Prepared] {
        guard case .photo(_, let compared) = raw else { return [try prepare(raw)] }
        return try [prepare(raw)]
            + compared.map { text, label in
                var window = try prepare(.words(text))
                window.source = label
                return window
            }
    }

    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> ComparedResult {
        ComparedResult(found: try Heads.embed(outputs, truncated: prepared.truncated))
    }

    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> ComparedResult {
        guard outputs.count > 1 else { return try answer(outputs[0], windows[0]) }
        let vectors = try outputs.map { try Heads.onlyRow($0).map(Double.init) }
        let cosines = vectors.dropFirst().map { zip($0, vectors[0]).reduce(0) { $0 + $1.0 * $1.1 } }
        let truncated = windows.contains(where: \.truncated)
        let labels = windows.dropFirst().compactMap(\.source)
        guard labels.count == cosines.count else {
            return ComparedResult(found: ScoreResult(score: cosines[0], truncated: truncated))
        }
        let logits = cosines.map { $0 * head.scale + head.bias }
        let record = Classification(labels: labels, activation: head.activation)
        return ComparedResult(found: Heads.classify(logits, record, truncated: truncated))
    }

    func raw(from stored: StoredInput) throws -> ImageOrText {
        if case .text(let text) = stored.form { return .words(text) }
        let pixels = try decoder(try bundle.readBytes(try stored.image()))
        guard case .labelled(_, let labels) = stored.form else { return .photo(pixels, []) }
        let options = try ZeroShotOptions(labels: labels, template: Self.defaultTemplate)
        return .photo(pixels, Self.sentences(options))
    }

    func restored(_ recorded: Tensor) -> Tensor {
        guard case .uint8(let levels) = recorded.values else { return recorded }
        return images.normalised(levels)
    }
}

/// An engine that runs the programs of texts once for each input, of which the last few thousand are kept.
private final class KeepingEngine: Engine, @unchecked Sendable {
    private struct Key: Hashable {
        let program: String
        let ids: [Double]
    }

    private static let most = 4096
    private let inner: any Engine
    private let lock = NSLock()
    private var kept: [Key: [String: Tensor]] = [:]

    init(_ inner: any Engine) { self.inner = inner }

    var executedBy: String { inner.executedBy }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        guard program != Manifest.imageProgram else { return try inner.run(program, inputs) }
        let key = Key(program: program, ids: inputs.sorted { $0.key < $1.key }.flatMap(\.value.doubles))
        if let found = lock.withLock({ kept[key] }) { return found }
        let found = try inner.run(program, inputs)
        lock.withLock {
            if kept.count >= Self.most { kept.removeAll() }
            kept[key] = found
        }
        return found
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        try inner.openDecoder(bucket, spec)
    }
}
