import XCTest

@testable import EdgeFormer

/// Places of tokens, and answers that are places, as places.json has them.
final class PlacesTests: XCTestCase {
    private let near = 1e-8

    private func cases(_ kind: String) throws -> [JsonValue] {
        try Golden.cases("places.json").filter { $0["kind"].text == kind }
    }

    func testTokensStandWhereTheLibrarySays() throws {
        let words = try Golden.json("wordpiece.json")
        let texts = words["cases"].items
        var tokenizers: [String: TextTokenizer] = [:]
        for item in try cases("tokens") {
            let of = texts[item["of"].int]
            let name = try XCTUnwrap(of["tokenizer"].text)
            if tokenizers[name] == nil {
                let data = Data((words["tokenizers"][name].text ?? "").utf8)
                tokenizers[name] = try TextTokenizer(data, file: "tokenizer.json")
            }
            let text = try XCTUnwrap(of["text"].text)
            let found = try XCTUnwrap(tokenizers[name]).encodeWhole(text, of["pair"].text)
            let context = "\(name) \(shown(text, limit: 200))"
            XCTAssertEqual(found.tokens.map { $0?.start ?? 0 }, item["starts"].ints, context)
            XCTAssertEqual(found.tokens.map { $0?.end ?? 0 }, item["ends"].ints, context)
            XCTAssertEqual(found.texts, item["texts"].ints, context)
            XCTAssertEqual(found.tokens.map { $0?.continues == true ? 1 : 0 }, item["continues"].ints, context)
            let keys = zip(found.texts, found.tokens).map { [$0, $1?.word ?? -1] }
            let begins = keys.indices.map { $0 == 0 || keys[$0] != keys[$0 - 1] ? 1 : 0 }
            XCTAssertEqual(begins, item["begins"].ints, context)
        }
    }

    func testAnswersToQuestions() throws {
        let bundle = try ModelBundle.open(Golden.url("places-spans.zip"))
        let pipeline = try QuestionAnswerer(bundle, engine: FormulaEngine(width: 2))
        for item in try cases("spans") {
            let (question, context) = (try XCTUnwrap(item["question"].text), try XCTUnwrap(item["context"].text))
            let most = item["max_answer_tokens"]
            let options = try SpanOptions(
                top: item["top"].int, unanswerable: item["unanswerable"].flag,
                maxAnswerTokens: most.isNull ? nil : most.int)
            XCTAssertEqual(
                try pipeline.windows(.pair(question, context)).map(\.program), item["windows"].items.compactMap(\.text))
            let found = try pipeline.run(question: question, context: context, options).answers
            let expected = item["answers"].items
            XCTAssertEqual(found.map { [$0.start, $0.end] }, expected.map { [$0[0].int, $0[1].int] }, shown(context))
            for (answer, other) in zip(found, expected) {
                XCTAssertEqual(answer.score, other[2].double, accuracy: near)
            }
        }
    }

    func testEntitiesOfTexts() throws {
        let bundle = try ModelBundle.open(Golden.url("places-entities.zip"))
        guard case .entities(let head) = bundle.manifest.postprocessing else { return XCTFail("no labels") }
        let pipeline = try EntityFinder(bundle, engine: FormulaEngine(width: head.labels.count))
        for item in try cases("entities") {
            let text = try XCTUnwrap(item["text"].text)
            let aggregation = try XCTUnwrap(Aggregation(rawValue: item["aggregation"].text ?? ""))
            let found = try pipeline.run(text, aggregation).entities
            let expected = item["entities"].items
            let context = "\(aggregation) \(shown(text))"
            XCTAssertEqual(found.map { [$0.start, $0.end] }, expected.map { [$0[0].int, $0[1].int] }, context)
            XCTAssertEqual(found.map(\.label), expected.map { $0[2].text ?? "" }, context)
            for (entity, other) in zip(found, expected) {
                XCTAssertEqual(entity.score, other[3].double, accuracy: near)
            }
        }
    }

    func testTokensForMasks() throws {
        let bundle = try ModelBundle.open(Golden.url("places-fills.zip"))
        let width = bundle.manifest.programs[0].outputs[0].shape[1]
        let pipeline = try MaskFiller(bundle, engine: FormulaEngine(width: width))
        for item in try cases("fills") {
            let text = try XCTUnwrap(item["text"].text)
            let targets = item["targets"]
            let options = try FillOptions(
                top: item["top"].int, targets: targets.isNull ? nil : targets.items.compactMap(\.text))
            let found = try pipeline.run(text, options)
            let expected = item["fills"].items
            XCTAssertEqual(found.truncated, item["truncated"].flag)
            XCTAssertEqual(
                found.fills.map { [$0.token, $0.mask] }, expected.map { [$0[0].int, $0[2].int] }, shown(text))
            XCTAssertEqual(found.fills.map(\.text), expected.map { $0[1].text ?? "" }, shown(text))
            for (fill, other) in zip(found.fills, expected) {
                XCTAssertEqual(fill.score, other[3].double, accuracy: near)
            }
        }
        XCTAssertEqual(errorName { _ = try pipeline.run("no mask") }, "InputError")
        XCTAssertEqual(errorName { _ = try pipeline.run("[MASK]", FillOptions(targets: ["two words"])) }, "InputError")
        XCTAssertEqual(errorName { _ = try FillOptions(top: 0) }, "InputError")
        XCTAssertEqual(errorName { _ = try FillOptions(targets: []) }, "InputError")
    }

    func testLabelsOfACall() throws {
        let bundle = try ModelBundle.open(Golden.url("places-labels.zip"))
        let pipeline = try TextClassifier(bundle, engine: FormulaEngine(width: 3, ofLast: true))
        for item in try cases("labels") {
            let text = try XCTUnwrap(item["text"].text)
            let options = try ZeroShotOptions(
                labels: item["labels"].items.compactMap(\.text), template: item["template"].text ?? "",
                multiLabel: item["multi_label"].flag)
            let found = try pipeline.run(text, options)
            let expected = item["found"].items
            XCTAssertEqual(found.truncated, item["truncated"].flag)
            XCTAssertEqual(found.entries.map(\.label), expected.map { $0[0].text ?? "" }, shown(text))
            for (entry, other) in zip(found.entries, expected) {
                XCTAssertEqual(entry.score, other[1].double, accuracy: near)
            }
        }
        let plain = try TextClassifier(
            try ModelBundle.open(Golden.url("tiny-text.zip")), engine: FormulaEngine(width: 3, ofLast: true))
        XCTAssertEqual(errorName { _ = try plain.run("hello", ZeroShotOptions(labels: ["a"])) }, "InputError")
    }

    func testWhatCannotBeAsked() throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-spans.zip"))
        let pipeline = try QuestionAnswerer(bundle, engine: FormulaEngine(width: 2))
        let long = String(repeating: "hello ", count: 60)
        for (question, context) in [
            ("", "a"), ("a", ""), (long, "hello"), ("a", String(repeating: "a", count: 200_001)),
        ] {
            XCTAssertEqual(errorName { _ = try pipeline.run(question: question, context: context) }, "InputError")
        }
        XCTAssertEqual(errorName { _ = try SpanOptions(top: 0) }, "InputError")
        XCTAssertEqual(try pipeline.run(question: "hello", context: " ").answers, [])
    }
}

/// Logits of each token by its id and place, or of a masked one or the last, as places.json says.
private final class FormulaEngine: Engine {
    let executedBy = "formula"
    private let width: Int
    private let ofLast: Bool

    init(width: Int, ofLast: Bool = false) { (self.width, self.ofLast) = (width, ofLast) }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        let ids = (inputs["input_ids"]?.doubles ?? []).map { Int($0) }
        let values = (0..<ids.count * width).map { index -> Float in
            let (place, column) = (index / width, index % width)
            return Float((7919 * ids[place] + 104_729 * place + 15_485_863 * column) % 65521) / 8192
        }
        let last = ofLast ? Int(inputs["attention_mask"]?.doubles.reduce(0, +) ?? 0) - 1 : nil
        guard let mark = inputs["mask_position"]?.doubles.firstIndex(of: 1) ?? last else {
            return ["logits": Tensor(values, shape: [1, ids.count, width])]
        }
        return ["logits": Tensor(Array(values[mark * width..<(mark + 1) * width]), shape: [1, width])]
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        throw EngineError("no speech")
    }
}
