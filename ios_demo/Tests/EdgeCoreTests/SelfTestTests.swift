import XCTest

@testable import EdgeFormer

final class SelfTestTests: XCTestCase {
    private func verify(_ name: String, _ change: (([String: Tensor]) -> [String: Tensor])? = nil) throws
        -> Verification
    {
        let bundle = try ModelBundle.open(Golden.url(name))
        let recorded = try RecordedEngine(bundle)
        return try SelfTest.run(bundle, engine: ChangingEngine(recorded, change), decoder: decodePng)
    }

    func testSpeechBundlesPassEveryStage() throws {
        let names = ["text", "score", "spans", "entities", "fills", "image", "image-text", "speech"]
        for name in names.map({ "tiny-\($0).zip" }) {
            let found = try verify(name)
            XCTAssertTrue(found.ok, "\(name): \(found)")
            XCTAssertEqual(found.executedBy, "recorded vectors")
        }
        XCTAssertEqual(try verify("tiny-speech.zip").stages.map(\.name), ["mel", "encode", "steps", "text"])
    }

    func testImagesAndTextsAreCompared() throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-image-text.zip"))
        var ran = 0
        let engine = ChangingEngine(try RecordedEngine(bundle)) { outputs in
            ran += 1
            return outputs
        }
        let comparer = try ImageTextComparer(bundle, engine: engine, decoder: decodePng)
        let recorded = try XCTUnwrap(
            try Vectors(bundle).cases.first { if case .scores = $0.expected { true } else { false } })
        guard case .scores(let expected) = recorded.expected else { return XCTFail("no scores") }
        let pixels = try decodePng(try bundle.readBytes(try recorded.raw.image()))
        for _ in 0..<2 {
            let answer = try comparer.classify(pixels, labels: expected.map(\.label).reversed())
            XCTAssertEqual(answer.entries.map(\.label), expected.map(\.label))
            for (found, known) in zip(answer.entries, expected) {
                XCTAssertEqual(found.score, known.score, accuracy: 1e-6)
            }
        }
        XCTAssertEqual(ran, 2 + expected.count)  // each text is embedded once
        let (image, text) = (try comparer.embed(pixels).vector, try comparer.embed("This is a photo of lights.").vector)
        let cosine = zip(image, text).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
        XCTAssertEqual(try comparer.score(pixels, query: "This is a photo of lights.").score, cosine, accuracy: 1e-6)
        XCTAssertEqual(
            errorName { _ = try comparer.classify(pixels, labels: ["a"], template: "no place") }, "InputError")
    }

    func testTheFirstStageThatDivergesIsNamed() throws {
        func scaled(_ outputs: [String: Tensor]) -> [String: Tensor] {
            outputs.mapValues { tensor in
                Tensor((tensor.floats ?? []).enumerated().map { $0 == 0 ? $1 + 3 : $1 }, shape: tensor.shape)
            }
        }
        XCTAssertEqual(try verify("tiny-image.zip", scaled).firstDiverging, "image")
        XCTAssertEqual(try verify("tiny-speech.zip", scaled).firstDiverging, "encode")
        for name in ["tiny-text.zip", "tiny-score.zip"] {
            let text = try XCTUnwrap(try verify(name, scaled).firstDiverging)
            XCTAssertTrue(text.hasPrefix("seq_"), text)
        }
    }

    func testNotANumberFails() throws {
        func corrupted(_ outputs: [String: Tensor]) -> [String: Tensor] {
            outputs.mapValues { Tensor([Float](repeating: .nan, count: $0.count), shape: $0.shape) }
        }
        let found = try verify("tiny-text.zip", corrupted)
        XCTAssertFalse(found.ok)
        XCTAssertEqual(found.stages.last?.comparison.maxAbs, nil)
    }

    func testRecordedNumbersThatTheModelHasNoRowFor() throws {
        try withTemporaryFolder { folder in
            try unpack("tiny-text.zip", into: folder)
            let url = folder.appendingPathComponent(Manifest.fileName)
            let text = try String(contentsOf: url, encoding: .utf8)
            let fewer = text.replacingOccurrences(of: "\"vocab_size\": 12", with: "\"vocab_size\": 11")
            try Data(fewer.utf8).write(to: url)
            XCTAssertThrowsError(try Vectors(try ModelBundle.open(folder))) { error in
                XCTAssertTrue("\(error)".contains("input_ids: expected numbers from 0 to 10"), "\(error)")
            }
        }
    }

    func testLabelsInAnotherOrderAreNamed() throws {
        try withTemporaryFolder { folder in
            try unpack("tiny-text.zip", into: folder)
            let url = folder.appendingPathComponent(Manifest.fileName)
            let text = try String(contentsOf: url, encoding: .utf8)
            let exchanged = text.replacingOccurrences(of: "\"lights\"", with: "\"_\"")
                .replacingOccurrences(of: "\"weather\"", with: "\"lights\"")
                .replacingOccurrences(of: "\"_\"", with: "\"weather\"")
            XCTAssertNotEqual(text, exchanged)
            try Data(exchanged.utf8).write(to: url)
            let bundle = try ModelBundle.open(folder)
            let found = try SelfTest.run(bundle, engine: try RecordedEngine(bundle), decoder: decodePng)
            XCTAssertEqual(found.firstDiverging, "answer")
            let reason = try XCTUnwrap(found.reason)
            XCTAssertTrue(reason.contains("'lights'") && reason.contains("'weather'"), reason)
        }
    }

    func testAnEngineThatFailsSaysWhy() throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-speech.zip"))
        let found = try SelfTest.run(bundle, engine: FailingEngine(), decoder: decodePng)
        XCTAssertEqual(found.firstDiverging, "encode")
        XCTAssertEqual(found.reason, "out of order")
    }

    func testABundleForAnotherTaskIsRefused() throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-text.zip"))
        let engine = try RecordedEngine(bundle)
        XCTAssertEqual(errorName { _ = try Transcriber(bundle, engine: engine) }, "InputError")
        XCTAssertEqual(errorName { _ = try TextEmbedder(bundle, engine: engine) }, "InputError")
    }
}

/// Another engine's outputs, changed.
private final class ChangingEngine: Engine, @unchecked Sendable {
    private let engine: any Engine
    private let change: (([String: Tensor]) -> [String: Tensor])?

    init(_ engine: any Engine, _ change: (([String: Tensor]) -> [String: Tensor])?) {
        (self.engine, self.change) = (engine, change)
    }

    var executedBy: String { engine.executedBy }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        let outputs = try engine.run(program, inputs)
        return change?(outputs) ?? outputs
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) -> any SpeechDecoder {
        HostStateDecoder(self, bucket, spec)
    }
}

/// Always fails.
private final class FailingEngine: Engine {
    let executedBy = "nothing"

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        throw EngineError("out of order")
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        HostStateDecoder(self, bucket, spec)
    }
}
