import Foundation

/// What a bundle does.
public enum BundleTask: String, CaseIterable, Sendable {
    /// Labels with scores for a text.
    case textClassification = "text-classification"
    /// A vector for a text.
    case textEmbedding = "text-embedding"
    /// A number for a text.
    case textScoring = "text-scoring"
    /// Places in a text that answer a question.
    case questionAnswering = "question-answering"
    /// Places in a text with labels.
    case tokenClassification = "token-classification"
    /// Tokens for the masks of a text.
    case fillMask = "fill-mask"
    /// Labels with scores for an image.
    case imageClassification = "image-classification"
    /// A vector for an image.
    case imageEmbedding = "image-embedding"
    /// Labels of a call with scores for an image, or a vector for an image or a text.
    case imageText = "image-text"
    /// A transcript of a recording.
    case speechRecognition = "speech-recognition"
}

/// The format of a bundle's model, which selects the engine.
public enum Target: String, CaseIterable, Sendable {
    /// TensorFlow Lite's successor.
    case litert
    /// Apple's format.
    case coreml
    /// PyTorch's format for devices.
    case executorch
    /// ONNX Runtime's format.
    case onnx
}

/// One callable of a model file.
public struct ProgramSpec: Equatable, Sendable {
    /// The name, unique in the bundle.
    public let name: String
    /// The model: a file, or for Core ML a folder.
    public let file: String
    /// The signature, function or method that runs it.
    public let entry: String
    /// What it takes, in order.
    public let inputs: [TensorSpec]
    /// What it gives, in order.
    public let outputs: [TensorSpec]
}

/// Text to token ids. Every program of the bundle is a bucket whose length is dimension 1 of `input_ids`.
public struct TextPreprocessing: Equatable, Sendable {
    /// The file in the tokenizers library's format; nil: callers bring token ids.
    public let tokenizer: String?
    /// What rows are filled up with.
    public let padTokenId: Int
    /// Token ids are below it; nil: not known.
    public let vocabSize: Int?
}

/// An image for the program `image`, or a text for one of the others, which are its buckets.
public struct ImageTextPreprocessing: Equatable, Sendable {
    /// Of images.
    public let image: ImagePreprocessing
    /// Of texts.
    public let text: TextPreprocessing
}

/// From raw input to the programs' inputs.
public enum Preprocessing: Equatable, Sendable {
    case text(TextPreprocessing)
    case image(ImagePreprocessing)
    case imageText(ImageTextPreprocessing)
    case audio(AudioPreprocessing)

    /// How images become pixels; nil: it takes none.
    var pixels: ImagePreprocessing? {
        switch self {
        case .image(let spec): spec
        case .imageText(let spec): spec.image
        case .text, .audio: nil
        }
    }
}

/// How logits become scores.
public enum Activation: String, CaseIterable, Sendable {
    /// One label holds; scores sum to 1.
    case softmax
    /// Any number of labels hold.
    case sigmoid
}

/// Labels in the order of the logits.
public struct Classification: Equatable, Sendable {
    /// Without duplicates.
    public let labels: [String]
    /// How logits become scores.
    public let activation: Activation
}

/// The program's output is the embedding itself.
public struct Embedding: Equatable, Sendable {
    /// Components of the vector.
    public let dim: Int
    /// The vector's L2 norm is 1.
    public let normalized: Bool
}

/// The program's output is the score itself, or its sigmoid is.
public struct Score: Equatable, Sendable {
    /// The score is the output's sigmoid, from 0 to 1.
    public let isSigmoid: Bool
}

/// Every program's output is an embedding of L2 norm 1.
public struct Similarity: Equatable, Sendable {
    /// Components of a vector.
    public let dim: Int
    /// A cosine times `scale` plus `bias` is a logit.
    public let scale: Double
    /// See `scale`.
    public let bias: Double
    /// Over the logits of a call's labels.
    public let activation: Activation
}

/// An answer is a span of the second text, scored by its first token and its last.
public struct SpanExtraction: Equatable, Sendable {
    /// Tokens that neighbouring windows of a long text share.
    public let stride: Int
    /// The longest answer.
    public let maxAnswerTokens: Int
}

/// How tokens become entities, as BUNDLE.md defines it.
public enum Aggregation: String, CaseIterable, Sendable {
    case none, simple, first, average, max
}

/// Every token gets a label; tokens of one label become an entity.
public struct TokenLabels: Equatable, Sendable {
    /// In the order of the logits.
    public let labels: [String]
    /// Labels of what is no entity.
    public let outside: [String]
    /// How tokens become entities.
    public let aggregation: Aggregation
    /// Tokens that neighbouring windows of a long text share.
    public let stride: Int
}

/// The program's only output is the logits (1, V) of every token of the vocabulary, at one position.
public struct MaskedToken: Equatable, Sendable {
    /// What stands in a text for the token that is looked for, as [MASK].
    public let maskToken: String
    /// Its id.
    public let maskTokenId: Int
}

/// From the programs' outputs to the answer.
public enum Postprocessing: Equatable, Sendable {
    case classification(Classification)
    case embedding(Embedding)
    case score(Score)
    case similarity(Similarity)
    case spans(SpanExtraction)
    case entities(TokenLabels)
    case fills(MaskedToken)
    case transcription(Transcription)
}

/// The oldest versions that run the bundle. nil: the target does not run there.
public struct Requirements: Equatable, Sendable {
    /// Of the code that reads bundles, `x.y.z`.
    public let runtime: String
    /// Of the system, as "18.0".
    public let ios: String?
    /// Of the system, as "15.0".
    public let macos: String?
    /// Of Android.
    public let androidApi: Int?
}

/// The checkpoint that the bundle was made from.
public struct Source: Equatable, Sendable {
    /// A hub id, a folder's name or a name of the zoo.
    public let id: String
    /// The checkpoint's version.
    public let revision: String?
    /// Over the weight files' bytes.
    public let weightsSha256: String
}

/// What was asked of the weights.
public struct Recipe: Equatable, Sendable {
    /// Decodes as `<activation range>_w<weight type>_a<activation type>`.
    public let name: String
    /// The type of the weights.
    public let weights: String
    /// The type of the activations.
    public let activations: String
    /// The type of the embedding tables.
    public let embeddings: String
}

/// What a file of the bundle must be.
public struct FileEntry: Equatable, Sendable {
    /// In lower-case hexadecimal.
    public let sha256: String
    /// In bytes.
    public let size: Int
}

/// Everything an app has to know to run a bundle; BUNDLE.md has each field's meaning.
public struct Manifest: Equatable, Sendable {
    /// The bundle's name.
    public let name: String
    /// The model family; informative.
    public let family: String
    /// What the bundle does.
    public let task: BundleTask
    /// The format of the model.
    public let target: Target
    /// As asked for at conversion.
    public let precision: String
    /// As the checkpoint states it; nil: it states none.
    public let license: String?
    /// The oldest versions that run it.
    public let requires: Requirements
    /// The checkpoint.
    public let source: Source
    /// The format of the weights.
    public let recipe: Recipe
    /// The attention kernel that the model was exported with.
    public let attention: String
    /// Versions of the packages that made the model, by package.
    public let toolchain: [String: String]
    /// What can be called.
    public let programs: [ProgramSpec]
    /// Before the programs.
    public let preprocessing: Preprocessing
    /// After the programs.
    public let postprocessing: Postprocessing
    /// How often each operator occurs in the model.
    public let operators: [String: Int]
    /// Every file but the manifest and its signature, by name.
    public let files: [String: FileEntry]

    /// The version of the format that this reader reads.
    public static let formatVersion = 1
    /// The version of the rules that this reader follows, for `requires.runtime`.
    public static let runtimeVersion = "0.1.0"
    /// The file's name.
    public static let fileName = "manifest.json"

    static let maxBytes = 4 << 20
    static let casesFile = "vectors/cases.json"
    /// Marks a bundle that the gates of its conversion refused.
    static let refusedFile = "refused.json"
    static let tensorsFile = "vectors/tensors.safetensors"
    static let imageProgram = "image"
    static let imageInput = "pixels"
    /// The names of the other stages of a verification.
    static let reservedPrograms = ["preprocess", "answer", "mel", "steps", "text"]

    /// Read a manifest from an untrusted file.
    ///
    /// - Throws: `BundleError`: it does not follow BUNDLE.md, or asks for a newer reader.
    public static func parse(_ data: Data) throws -> Manifest {
        let value = try StrictJson.parse(data, file: fileName, maxBytes: maxBytes)
        if case .object(let object) = value { try checkVersion(object) }
        let manifest = try ManifestReader.manifest(value)
        if value.containsText(where: { $0.unicodeScalars.contains(where: isControl) }) {
            throw BundleError("\(fileName): a text holds a control character")
        }
        try ManifestChecks.check(manifest)
        return manifest
    }

    /// Say that a bundle is newer before a reader that cannot know its keys says something less helpful.
    private static func checkVersion(_ object: JsonObject) throws {
        if case .integer(let found)? = object["format_version"], found > formatVersion {
            throw BundleError(
                "\(fileName): made by a newer version (\(found)), this app reads \(formatVersion): update it")
        }
        if case .object(let requires)? = object["requires"], case .string(let needed)? = requires["runtime"],
            let version = numbers(needed), let own = numbers(runtimeVersion), own.lexicographicallyPrecedes(version)
        {
            throw BundleError("\(fileName): needs version \(needed), this app has \(runtimeVersion): update it")
        }
    }

    /// The numbers of a version; nil for a text that is none.
    private static func numbers(_ version: String) -> [Int]? {
        let parts = version.split(separator: ".", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { $0.count < 9 && $0.utf8.allSatisfy(isDigit) ? Int($0) : nil }
        return numbers.count == parts.count ? numbers : nil
    }
}

/// C0, DEL, C1, and what turns the direction of the text behind it: terminals and screens obey them.
private func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F...0x9F, 0x202A...0x202E, 0x2066...0x2069: true
    default: false
    }
}
