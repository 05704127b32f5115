import EdgeCore
import Foundation

/// What a bundle of any task that reads texts answers.
public enum TextAnswer: Equatable, Sendable {
    /// Of the tasks that read texts.
    public static let tasks: Set<BundleTask> = [
        .textClassification, .textEmbedding, .textScoring, .questionAnswering, .tokenClassification, .fillMask,
    ]

    case labels(ClassificationResult)
    case embedding(EmbeddingResult)
    case score(ScoreResult)
    case spans(SpanResult)
    case entities(EntityResult)
    case fills(FillResult)
}

/// A bundle in use: opened, checked and ready to answer. An actor: work takes turns, off the main thread.
public actor BundleSession {
    /// What the bundle says about itself.
    public nonisolated let manifest: Manifest
    /// From its files to the first answer: checking, compiling, loading and warming up.
    public nonisolated let loadMs: Double
    /// Of all its files.
    public nonisolated let sizeBytes: Int
    private let bundle: ModelBundle
    private let engine: any Engine
    private let decoder: ImageDecoder
    private var openedText: (@Sendable (RawText) throws -> TextAnswer)?
    private var openedImages: ImageClassifier?
    private var openedSpeech: Transcriber?

    /// Open a bundle.
    ///
    /// - Parameters:
    ///   - url: its folder or zip.
    ///   - engines: the app's.
    ///   - decoder: opens image files.
    /// - Throws: `BundleError`: it is corrupted. `EngineError`: it does not run here.
    public init(_ url: URL, engines: Engines, decoder: @escaping ImageDecoder) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        bundle = try ModelBundle.open(url)
        engine = try await engines.open(bundle)
        loadMs = (clock.now - start).milliseconds
        manifest = bundle.manifest
        sizeBytes = bundle.sizeBytes
        self.decoder = decoder
    }

    /// The answer to a text, or to a text and a second one.
    public func answer(_ text: RawText) throws -> TextAnswer {
        let run = try openedText ?? openText()
        openedText = run
        return try run(text)
    }

    /// Labels with scores for an image.
    public func classify(_ pixels: Pixels) throws -> ClassificationResult { try images().run(pixels) }

    /// Labels with scores for an image file.
    public func classify(file: Data) throws -> ClassificationResult { try images().run(file) }

    /// The bundle's transcriber, which takes audio whole or as it arrives.
    public func transcriber() throws -> Transcriber {
        let pipeline = try openedSpeech ?? Transcriber(bundle, engine: engine)
        openedSpeech = pipeline
        return pipeline
    }

    /// Replay the recorded vectors.
    public func selfTest(progress: (@Sendable (Int, Int) -> Void)? = nil) throws -> Verification {
        try SelfTest.run(bundle, engine: engine, decoder: decoder, progress: progress)
    }

    /// Measure the bundle on a recorded input, after a few rounds that do not count.
    ///
    /// - Throws: `CancellationError`: the task was cancelled.
    public func measure(rounds: Int, warmUpRounds: Int = 3) throws -> Measurement {
        let workload = try Workload(bundle, engine: engine)
        let clock = ContinuousClock()
        var times: [Double] = []
        for round in 0..<warmUpRounds + rounds {
            try Task.checkCancellation()
            let time = try clock.measure { try workload.run() }
            if round >= warmUpRounds { times.append(time.milliseconds) }
        }
        return Measurement(program: workload.program, times: times, footprintBytes: MemoryFootprint.bytes())
    }

    private func openText() throws -> @Sendable (RawText) throws -> TextAnswer {
        switch manifest.task {
        case .textEmbedding:
            let pipeline = try TextEmbedder(bundle, engine: engine)
            return { .embedding(try pipeline.run($0)) }
        case .textScoring:
            let pipeline = try TextScorer(bundle, engine: engine)
            return { .score(try pipeline.run($0)) }
        case .questionAnswering:
            let pipeline = try QuestionAnswerer(bundle, engine: engine)
            return { .spans(try pipeline.run($0)) }
        case .tokenClassification:
            let pipeline = try EntityFinder(bundle, engine: engine)
            return { .entities(try pipeline.run($0)) }
        case .fillMask:
            let pipeline = try MaskFiller(bundle, engine: engine)
            return { .fills(try pipeline.run($0)) }
        default:  // what reads no texts is refused by its name
            let pipeline = try TextClassifier(bundle, engine: engine)
            return { .labels(try pipeline.run($0)) }
        }
    }

    private func images() throws -> ImageClassifier {
        let pipeline = try openedImages ?? ImageClassifier(bundle, engine: engine, decoder: decoder)
        openedImages = pipeline
        return pipeline
    }
}
