/// How one stage compares with the reference, at its worst over all cases.
public struct Stage: Equatable, Sendable {
    /// "preprocess", a program's name, or "answer"; of speech "mel", "encode", "steps" or "text".
    public let name: String
    /// Of the case that is closest to its tolerance or farthest beyond it.
    public let comparison: Comparison
}

/// The outcome of a self-test.
public struct Verification: Equatable, Sendable {
    /// What ran the programs, with its version.
    public let executedBy: String
    /// In the order of execution.
    public let stages: [Stage]

    /// Every stage is within its tolerance.
    public var ok: Bool { firstDiverging == nil }
    /// The first stage that is not ok, nil where all are.
    public var firstDiverging: String? { stages.first { !$0.comparison.ok }?.name }
    /// What is known of why it is not ok, nil where nothing is.
    public var reason: String? { stages.first { !$0.comparison.ok }?.comparison.reason }
}

/// Replays cases of one kind and compares each stage with the reference.
protocol Replay {
    func play(_ recorded: Case) throws

    /// What was found so far: every stage in the order of execution.
    var comparisons: [(stage: String, found: [Comparison])] { get }
}

/// Replays a bundle's recorded vectors stage by stage and names the first stage that diverges from the reference.
public enum SelfTest {
    /// Run the self-test of a bundle. This runs every program, so keep it off the main thread.
    ///
    /// - Parameters:
    ///   - bundle: an open bundle.
    ///   - engine: what runs its programs.
    ///   - decoder: opens recorded images.
    ///   - progress: called with the number of finished cases and of all cases.
    /// - Returns: every stage at its worst.
    /// - Throws: `BundleError`: the bundle has no vectors, or they are corrupted. An engine that fails is a stage that is not ok.
    public static func run(
        _ bundle: ModelBundle, engine: any Engine, decoder: @escaping ImageDecoder,
        progress: (@Sendable (Int, Int) -> Void)? = nil
    ) throws -> Verification {
        let vectors = try Vectors(bundle)
        let replay: any Replay =
            switch bundle.manifest.task {
            case .textClassification:
                ProgramReplay(try TextClassifier(bundle, engine: engine), vectors)
            case .textEmbedding:
                ProgramReplay(try TextEmbedder(bundle, engine: engine), vectors)
            case .textScoring:
                ProgramReplay(try TextScorer(bundle, engine: engine), vectors)
            case .questionAnswering:
                ProgramReplay(try QuestionAnswerer(bundle, engine: engine), vectors)
            case .tokenClassification:
                ProgramReplay(try EntityFinder(bundle, engine: engine), vectors)
            case .fillMask:
                ProgramReplay(try MaskFiller(bundle, engine: engine), vectors)
            case .imageClassification:
                ProgramReplay(try ImageClassifier(bundle, engine: engine, decoder: decoder), vectors)
            case .imageEmbedding:
                ProgramReplay(try ImageEmbedder(bundle, engine: engine, decoder: decoder), vectors)
            case .imageText:
                ProgramReplay(try ImageTextComparer(bundle, engine: engine, decoder: decoder), vectors)
            case .speechRecognition:
                SpeechReplay(bundle, try SpeechModel(bundle, engine), vectors)
            }
        for (index, recorded) in vectors.cases.enumerated() {
            try replay.play(recorded)
            progress?(index + 1, vectors.cases.count)
        }
        let stages = replay.comparisons.compactMap { stage, found in
            Comparison.worst(found).map { Stage(name: stage, comparison: $0) }
        }
        return Verification(executedBy: engine.executedBy, stages: stages)
    }
}
