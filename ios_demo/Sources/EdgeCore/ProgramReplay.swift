/// Replays recorded cases whose answer is one program's outputs: preprocess, program, answer.
final class ProgramReplay<Pipeline: ProgramPipeline>: Replay {
    /// Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's.
    private let pixelToleranceLevels = 2.01
    /// Between recorded scores and those of the recorded logits: the rounding of float32 in another implementation.
    private let recordedTolerance = 1e-4

    private let pipeline: Pipeline
    private let tolerances: Tolerances
    private let scales: Scales
    private let names: [String]
    private var found: [String: [Comparison]] = [:]

    init(_ pipeline: Pipeline, _ vectors: Vectors) {
        self.pipeline = pipeline
        tolerances = vectors.tolerances
        scales = Scales(vectors.cases.map { $0.outputs.mapValues(\.doubles) })
        names = ["preprocess"] + pipeline.bundle.manifest.programs.map(\.name) + ["answer"]
    }

    var comparisons: [(stage: String, found: [Comparison])] { names.map { ($0, found[$0] ?? []) } }

    func play(_ recorded: Case) throws {
        found["preprocess", default: []].append(try preprocess(recorded))
        found[recorded.program, default: []].append(try program(recorded))
        found["answer", default: []].append(try answer(recorded))
    }

    /// Token ids have no tolerance: each of them selects another row of the embedding table. Pixels have a small one.
    private var inputTolerance: Double {
        guard let spec = pipeline.bundle.manifest.preprocessing.pixels else { return 0 }
        return pixelToleranceLevels / (255 * (spec.std.min() ?? 1))
    }

    private func raw(_ recorded: Case) throws -> Pipeline.Raw {
        do {
            return try pipeline.raw(from: recorded.raw)
        } catch let error as InputError {
            throw BundleError("\(Manifest.casesFile): an input cannot be used: \(error.message)")
        }
    }

    private func inputs(_ recorded: Case) -> [String: Tensor] { recorded.inputs.mapValues(pipeline.restored) }

    private func preprocess(_ recorded: Case) throws -> Comparison {
        let prepared = try pipeline.prepare(try raw(recorded))
        guard prepared.program == recorded.program else { return .failed(inputTolerance) }
        let all = inputs(recorded).map { Comparison.of(prepared.inputs[$0], $1, tolerance: inputTolerance) }
        return Comparison.worst(all) ?? .failed(inputTolerance)
    }

    private func program(_ recorded: Case) throws -> Comparison {
        do {
            let outputs = try pipeline.engine.run(recorded.program, inputs(recorded))
            let all = recorded.outputs.map { compare($0, outputs[$0], $1) }
            return Comparison.worst(all) ?? .failed(0)
        } catch let error as EngineError {
            let limits = recorded.outputs.keys.map { scales.limit($0, tolerances.output) }
            return .failed(limits.max() ?? 0, reason: error.message)
        }
    }

    private func compare(_ name: String, _ found: Tensor?, _ reference: Tensor) -> Comparison {
        guard let found, found.shape == reference.shape else { return .failed(scales.limit(name, tolerances.output)) }
        return scales.compare(name, found.doubles, reference.doubles, tolerance: tolerances.output)
    }

    /// The whole way from raw input: scores by label, the embedding, or the score.
    private func answer(_ recorded: Case) throws -> Comparison {
        switch recorded.expected {
        case .spans, .entities, .fills: return try places(recorded)
        default: break
        }
        let reference: [Double]
        var tolerance = tolerances.score
        if case .scores(let entries) = recorded.expected {
            reference = entries.map(\.score)
            // Of a call's labels the recorded output is an embedding, and no logits.
            if case .classification = pipeline.bundle.manifest.postprocessing,
                let wrong = try misnamed(recorded, entries)
            {
                return wrong
            }
        } else {
            let output = recorded.outputs.first
            let limit = scales.limit(output?.key ?? "", tolerances.output)
            switch pipeline.bundle.manifest.postprocessing {
            case .score(let head):
                reference = [try Heads.score(recorded.outputs, head, truncated: false).score]
                if !head.isSigmoid { tolerance = limit }
            case .embedding(let head):
                reference = output?.value.doubles ?? []
                if !head.normalized { tolerance = limit }
            default: reference = output?.value.doubles ?? []
            }
        }
        do {
            let result = try pipeline.measured(try raw(recorded))
            return Comparison.of(values(of: result, in: recorded.expected), reference, tolerance: tolerance)
        } catch let error as EngineError {
            return .failed(tolerance, reason: error.message)
        }
    }

    /// Answers that are places: the recorded outputs of an only window give the recorded places exactly; the engine's are
    /// close to the recorded probabilities. Which place is the best may hang on the last digit.
    private func places(_ recorded: Case) throws -> Comparison {
        let windows = try pipeline.windows(try raw(recorded))
        if windows.count == 1, let wrong = try misplaced(recorded, windows) { return wrong }
        do {
            let outputs = try pipeline.engine.run(windows[0].program, windows[0].inputs)
            let expected = try probabilities(recorded.outputs, windows[0])
            return Comparison.of(try probabilities(outputs, windows[0]), expected, tolerance: tolerances.score)
        } catch let error as EngineError {
            return .failed(tolerances.score, reason: error.message)
        }
    }

    private func misplaced(_ recorded: Case, _ windows: [Prepared]) throws -> Comparison? {
        let found: ([[String]], [Double])
        let expected: ([[String]], [Double])
        var what = "places in the text"
        switch (try pipeline.answer([recorded.outputs], windows), recorded.expected) {
        case (let result as SpanResult, .spans(let answers)):
            found = (result.answers.map { ["\($0.start)", "\($0.end)"] }, result.answers.map(\.score))
            expected = (answers.map { ["\($0.start)", "\($0.end)"] }, answers.map(\.score))
        case (let result as EntityResult, .entities(let entities)):
            found = (result.entities.map { ["\($0.start)", "\($0.end)", $0.label] }, result.entities.map(\.score))
            expected = (entities.map { ["\($0.start)", "\($0.end)", $0.label] }, entities.map(\.score))
        case (let result as FillResult, .fills(let fills)):
            what = "tokens"
            found = (result.fills.map { ["\($0.token)", $0.text, "\($0.mask)"] }, result.fills.map(\.score))
            expected = (fills.map { ["\($0.token)", $0.text, "\($0.mask)"] }, fills.map(\.score))
        default: return nil
        }
        guard found.0 == expected.0 else {
            return .failed(recordedTolerance, reason: "the recorded outputs give other \(what)")
        }
        let comparison = Comparison.of(found.1, expected.1, tolerance: recordedTolerance)
        return comparison.ok ? nil : comparison.because("the recorded outputs give other scores")
    }

    /// What a window's tokens have, by which places are chosen; of a mask what each token of the vocabulary has.
    private func probabilities(_ outputs: [String: Tensor], _ window: Prepared) throws -> [Double] {
        guard let places = window.places else {
            return Heads.softmax(try Heads.onlyRow(outputs).map(Double.init))
        }
        if case .entities(let head) = pipeline.bundle.manifest.postprocessing {
            let logits = try TokenLogits.of(outputs, places, width: head.labels.count)
            return TokenLogits.probabilities(logits).flatMap { $0 }
        }
        let logits = try TokenLogits.of(outputs, places, width: SpanProbabilities.width)
        let found = SpanProbabilities(logits, places)
        return found.starts + found.ends
    }

    /// What is wrong with the labels where the recorded logits do not give the recorded answer, without any engine.
    private func misnamed(_ recorded: Case, _ entries: [ClassificationResult.Entry]) throws -> Comparison? {
        let result = try pipeline.answer(recorded.outputs, try pipeline.prepare(try raw(recorded)))
        let (found, expected) = (values(of: result, in: recorded.expected), entries.map(\.score))
        let comparison = Comparison.of(found, expected, tolerance: recordedTolerance)
        guard !comparison.ok else { return nil }
        let wrong = zip(entries, found).filter { abs($0.score - $1) > recordedTolerance }.map { shown($0.0.label) }
        guard Comparison.of(found.sorted(), expected.sorted(), tolerance: recordedTolerance).ok else {
            return comparison.because("the recorded logits do not give the recorded scores: the activation is another")
        }
        return comparison.because(
            wrong.count == 2
                ? "the scores are right, but the labels \(wrong[0]) and \(wrong[1]) are exchanged"
                : "the scores are right, but \(wrong.count) labels stand in another order")
    }

    /// An answer's numbers in the order of the expected ones.
    private func values(of result: Pipeline.Answer, in expected: ExpectedAnswer) -> [Double] {
        switch ((result as? ComparedResult)?.found ?? result, expected) {
        case (let result as ClassificationResult, .scores(let entries)):
            let scores = Dictionary(
                result.entries.map { (ExactString($0.label), $0.score) }, uniquingKeysWith: { first, _ in first })
            return entries.compactMap { scores[ExactString($0.label)] }
        case (let result as ScoreResult, _): return [result.score]
        case (let result as EmbeddingResult, _): return result.vector.map(Double.init)
        default: return []
        }
    }
}
