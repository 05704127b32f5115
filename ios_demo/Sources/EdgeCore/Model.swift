import Foundation

/// A bundle with its engine, ready to answer: what most apps need of the library. An actor: calls take turns, off the main
/// thread.
///
/// A call of a task that is cancelled ends before the next program of the model runs: within a token of speech. An input
/// that the bundle cannot take, or a question that is not its task's, is an `InputError`; a model that fails is an
/// `EngineError`.
///
/// ```swift
/// let model = try await Model.open(url, engines: [.coreML])
/// print(try await model.classify("turn the lights off").label)
/// ```
public actor Model {
    /// The open bundle.
    public nonisolated let bundle: ModelBundle
    /// What runs its programs.
    public nonisolated let engine: any Engine
    private let images: ImageDecoder
    private var pipeline: Any?

    /// What the bundle says about itself.
    public nonisolated var manifest: Manifest { bundle.manifest }
    /// What executes the programs, with its version.
    public nonisolated var executedBy: String { engine.executedBy }

    private init(_ bundle: ModelBundle, _ engine: any Engine, _ images: @escaping ImageDecoder) {
        self.bundle = bundle
        self.engine = StoppableEngine(engine)
        self.images = images
    }

    /// Open a bundle, check all of it, and open its engine.
    ///
    /// - Parameters:
    ///   - url: the bundle's folder, or a stored zip of it.
    ///   - engines: those of the app.
    ///   - required: whose bundle it must be, and which.
    ///   - images: decodes image files; only needed for these.
    /// - Returns: a model that is ready.
    /// - Throws: `BundleError`: it does not follow BUNDLE.md, or is not what is required. `EngineError`: no engine runs it.
    public static func open(
        _ url: URL, engines: [EngineProvider], required: Required = .nothing,
        images: @escaping ImageDecoder = Model.noImages
    ) async throws -> Model {
        let bundle = try await Task.detached { try ModelBundle.open(url, required: required) }.value
        try Task.checkCancellation()
        return Model(bundle, try await engines.open(bundle), images)
    }

    /// Open a bundle among the resources of an app, a folder or a zip; see the other `open`.
    ///
    /// - Throws: `BundleError`: also where there is no such resource.
    public static func open(
        resource: String, in resources: Bundle = .main, engines: [EngineProvider], required: Required = .nothing,
        images: @escaping ImageDecoder = Model.noImages
    ) async throws -> Model {
        guard let url = resources.url(forResource: resource, withExtension: nil) else {
            throw BundleError("no resource \(shown(resource)) in the app: expected a bundle's folder or zip")
        }
        return try await open(url, engines: engines, required: required, images: images)
    }

    /// Labels of the bundle for a text, best first.
    public func classify(_ text: String) throws -> ClassificationResult {
        try opened(TextClassifier.init).run(.text(text))
    }

    /// Labels of the call for a text, best first, by a model of natural language inference.
    public func classify(_ text: String, _ options: ZeroShotOptions) throws -> ClassificationResult {
        try opened(TextClassifier.init).run(text, options)
    }

    /// Labels of the bundle for an image, best first.
    public func classify(_ pixels: Pixels) throws -> ClassificationResult { try classifier().run(pixels) }

    /// Labels of the bundle for an image file, such as a JPEG, which the platform decodes.
    public func classify(file: Data) throws -> ClassificationResult { try classifier().run(file) }

    /// Labels of the call for an image, best first, by a model of images and texts.
    public func classify(
        _ pixels: Pixels, labels: [String], template: String = ImageTextComparer.defaultTemplate
    ) throws -> ClassificationResult {
        try comparer().classify(pixels, labels: labels, template: template)
    }

    /// The cosine of an image and a text, by a model of both.
    public func score(_ pixels: Pixels, query: String) throws -> ScoreResult {
        try comparer().score(pixels, query: query)
    }

    /// The embedding of a text.
    public func embed(_ text: String) throws -> EmbeddingResult {
        if bundle.manifest.task == .imageText { return try comparer().embed(text) }
        return try opened(TextEmbedder.init).run(.text(text))
    }

    /// The embedding of an image.
    public func embed(_ pixels: Pixels) throws -> EmbeddingResult {
        if bundle.manifest.task == .imageText { return try comparer().embed(pixels) }
        return try opened { try ImageEmbedder($0, engine: $1, decoder: self.images) }.run(pixels)
    }

    /// The score of a text, or of a pair of texts.
    public func score(_ text: String, _ second: String? = nil) throws -> ScoreResult {
        try opened(TextScorer.init).run(second.map { .pair(text, $0) } ?? .text(text))
    }

    /// Answers to a question in a context, best first.
    public func answer(
        _ question: String, in context: String, _ options: SpanOptions? = nil
    ) throws -> SpanResult {
        try opened(QuestionAnswerer.init).run(question: question, context: context, options)
    }

    /// Names, places and what else the bundle finds in a text.
    public func entities(in text: String) throws -> EntityResult { try opened(EntityFinder.init).run(.text(text)) }

    /// Tokens for the masks of a text, best first.
    public func fill(_ text: String, _ options: FillOptions? = nil) throws -> FillResult {
        try opened(MaskFiller.init).run(text, options)
    }

    /// What is said in a wav file of any rate, format and number of channels.
    ///
    /// - Parameters:
    ///   - wav: where it lies.
    ///   - options: how.
    ///   - progress: called after each window with the seconds of audio that are done.
    /// - Returns: all segments of the audio.
    /// - Throws: `CancellationError`: the task was cancelled.
    public func transcribe(
        _ wav: URL, options: TranscribeOptions = TranscribeOptions(), progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> Transcript {
        let transcriber = try transcriber()
        guard let data = try? Data(contentsOf: wav, options: .mappedIfSafe) else {
            throw InputError("\(wav.lastPathComponent): cannot be read")
        }
        let recording = try AudioReader(try WavSource(data), sampleRate: transcriber.sampleRate)
        return try await transcriber.transcribe(recording, options: options, progress: progress)
    }

    /// The bundle's transcriber, for audio from elsewhere: it takes an `AudioReader`, and samples.
    public func transcriber() throws -> Transcriber { try opened(Transcriber.init) }

    /// Text while audio arrives: guesses, and what stays. The sequence ends when the audio does.
    ///
    /// Who speaks is never held up. All audio that waits is taken at once, so a slow phone makes fewer guesses instead of
    /// falling behind further, and each update says how late it is (`lateSeconds`). To stop, end `audio`: what was said
    /// before still comes out. A cancelled reader drops it.
    ///
    /// - Parameters:
    ///   - audio: blocks of samples (N) from -1 to 1 at the transcriber's `sampleRate`, of any length.
    ///   - options: how.
    ///   - stream: when there is text.
    /// - Returns: what is new, as it comes.
    public nonisolated func stream<Audio: AsyncSequence & Sendable>(
        _ audio: Audio, options: TranscribeOptions = TranscribeOptions(), stream: StreamOptions = StreamOptions()
    ) -> AsyncThrowingStream<StreamUpdate, any Error> where Audio.Element == [Float] {
        AsyncThrowingStream { updates in
            let work = Task {
                do {
                    try await self.listen(audio, options, stream) { updates.yield($0) }
                    updates.finish()
                } catch {
                    updates.finish(throwing: error)
                }
            }
            updates.onTermination = { _ in work.cancel() }
        }
    }

    private nonisolated func listen<Audio: AsyncSequence & Sendable>(
        _ audio: Audio, _ options: TranscribeOptions, _ stream: StreamOptions,
        _ tell: @escaping @Sendable (StreamUpdate) -> Void
    ) async throws where Audio.Element == [Float] {
        let transcriber = try await transcriber()
        try await transcriber.openStream(options: options, stream: stream)
        let waiting = WaitingAudio()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                defer { waiting.finish() }
                for try await block in audio { waiting.append(block) }
            }
            for await blocks in waiting.deliveries {
                let samples = blocks.flatMap { $0 }
                let late = Double(samples.count - (blocks.first?.count ?? 0)) / Double(transcriber.sampleRate)
                for var update in try await transcriber.feed(samples) {
                    update.lateSeconds = late
                    tell(update)
                }
            }
            try await group.waitForAll()
        }
        try Task.checkCancellation()
        try await transcriber.finishStream()?.updates.forEach(tell)
    }

    /// The bundle's self-test: its recorded inputs once more, stage by stage.
    public func selfTest(progress: (@Sendable (Int, Int) -> Void)? = nil) throws -> Verification {
        try SelfTest.run(bundle, engine: engine, decoder: images, progress: progress)
    }

    /// Refuses image files, as the library has no decoder of its own.
    public static let noImages: ImageDecoder = { _ in
        throw InputError("no decoder of image files was given: open the model with one")
    }

    private func classifier() throws -> ImageClassifier {
        try opened { try ImageClassifier($0, engine: $1, decoder: self.images) }
    }

    private func comparer() throws -> ImageTextComparer {
        try opened { try ImageTextComparer($0, engine: $1, decoder: self.images) }
    }

    /// The pipeline of the bundle's task, opened when it is first needed.
    func opened<Pipeline>(_ open: (ModelBundle, any Engine) throws -> Pipeline) throws -> Pipeline {
        if let pipeline = pipeline as? Pipeline { return pipeline }
        let opened = try open(bundle, engine)
        pipeline = opened
        return opened
    }
}
