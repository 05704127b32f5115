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

extension Model {
    /// The answer of a bundle of any task that reads texts to a text, or to a text and a second one.
    public func answer(_ text: RawText) throws -> TextAnswer {
        switch manifest.task {
        case .textEmbedding: .embedding(try opened(TextEmbedder.init).run(text))
        case .textScoring: .score(try opened(TextScorer.init).run(text))
        case .questionAnswering: .spans(try opened(QuestionAnswerer.init).run(text))
        case .tokenClassification: .entities(try opened(EntityFinder.init).run(text))
        case .fillMask: .fills(try opened(MaskFiller.init).run(text))
        default: .labels(try opened(TextClassifier.init).run(text))  // what reads no texts is refused by its name
        }
    }
}
