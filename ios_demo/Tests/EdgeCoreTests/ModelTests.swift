import Foundation
import XCTest

@testable import EdgeFormer

/// The interface of most apps, on golden bundles that answer what was recorded.
final class ModelTests: XCTestCase {
    private func opened(_ zip: String) async throws -> Model {
        try await Model.open(Golden.url(zip), engines: [.recorded])
    }

    /// The longest recording of the speech bundle as a wav file, and its text.
    private func recording(_ model: Model) throws -> (wav: URL, samples: [Float], text: String) {
        let longest = try XCTUnwrap(try Vectors(model.bundle).cases.last)
        guard case .audio(let file, let count) = longest.raw.form, case .transcript(let text, _, _) = longest.expected,
            case .audio(let spec) = model.manifest.preprocessing
        else { throw XCTSkip("no audio") }
        let bytes = try model.bundle.readBytes(file)
        let wav = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).wav")
        try bytes.write(to: wav)
        addTeardownBlock { try FileManager.default.removeItem(at: wav) }
        return (wav, try WavSource.recorded(bytes, sampleRate: spec.sampleRate, count: count, file: file), text)
    }

    /// What was recorded has no timestamps.
    private var plain: TranscribeOptions {
        var options = TranscribeOptions()
        options.timestamps = false
        return options
    }

    func testARecordedTextHasItsRecordedAnswer() async throws {
        let model = try await opened("tiny-text.zip")
        let recorded = try XCTUnwrap(try Vectors(model.bundle).cases.first)
        guard case .text(let text) = try recorded.raw.text(), case .scores(let expected) = recorded.expected else {
            return XCTFail("no text")
        }
        let found = try await model.classify(text)
        XCTAssertEqual(found.label, expected[0].label)
        XCTAssertEqual(found.score, expected[0].score, accuracy: 1e-4)
        let verification = try await model.selfTest()
        XCTAssertTrue(verification.ok, "\(verification)")
        XCTAssertEqual(model.executedBy, "recorded vectors")
    }

    func testWhatIsWrongHasAType() async throws {
        let model = try await opened("tiny-text.zip")
        await assertThrows(InputError.self, "text-classification") { _ = try await model.embed("lights") }
        await assertThrows(EngineError.self, "not recorded") { _ = try await model.classify("weather lights weather") }
        await assertThrows(BundleError.self, "no bundle") { _ = try await self.opened("none.zip") }
        await assertThrows(BundleError.self, "no resource") {
            _ = try await Model.open(resource: "none", engines: [.recorded])
        }
        let images = try await opened("tiny-image.zip")
        await assertThrows(InputError.self, "no decoder") { _ = try await images.classify(file: Data()) }
        await assertThrows(EngineError.self, "runs bundles for coreml, found onnx") {
            let engines = [EngineProvider(.coreml) { try RecordedEngine($0) }]
            _ = try await Model.open(Golden.url("tiny-text.zip"), engines: engines)
        }
    }

    func testARecordingIsTranscribedFromItsFileAndBlockByBlock() async throws {
        let model = try await opened("tiny-speech.zip")
        let (wav, samples, text) = try recording(model)
        let whole = try await model.transcribe(wav, options: plain)
        XCTAssertEqual(whole.text, text)
        let size = try await model.transcriber().sampleRate / 10
        let (blocks, speaker) = AsyncStream.makeStream(of: [Float].self)
        for start in stride(from: 0, to: samples.count, by: size) {
            speaker.yield(Array(samples[start...].prefix(size)))
        }
        speaker.finish()
        var said: [String] = []
        for try await update in model.stream(blocks, options: plain) { said += update.final.map(\.text) }
        XCTAssertEqual(said.joined(separator: " "), text)
    }

    func testACancelledCallEndsBeforeTheNextProgram() async throws {
        let model = try await opened("tiny-speech.zip")
        let wav = try recording(model).wav
        let options = plain
        let call = Task {
            while !Task.isCancelled { await Task.yield() }
            return try await model.transcribe(wav, options: options)
        }
        call.cancel()
        do {
            _ = try await call.value
            XCTFail("expected an error")
        } catch {
            XCTAssertTrue(error is CancellationError, "\(error)")
        }
        let after = try await model.transcribe(wav, options: options)
        XCTAssertFalse(after.text.isEmpty)
    }

    func testAnEngineIsAskedWhetherToGoOn() async throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-text.zip"))
        let recorded = try XCTUnwrap(try Vectors(bundle).cases.first)
        let engine = StoppableEngine(try RecordedEngine(bundle))
        XCTAssertFalse(try engine.run(recorded.program, recorded.inputs).isEmpty)
        let call = Task {
            while !Task.isCancelled { await Task.yield() }
            return try engine.run(recorded.program, recorded.inputs)
        }
        call.cancel()
        let result = await call.result
        XCTAssertThrowsError(try result.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
    }

    private func assertThrows<Failure: Error>(
        _ kind: Failure.Type, _ words: String, _ work: () async throws -> Void, line: UInt = #line
    ) async {
        do {
            try await work()
            XCTFail("expected an error", line: line)
        } catch {
            XCTAssertTrue(error is Failure && "\(error)".contains(words), "\(type(of: error)) \(error)", line: line)
        }
    }
}
