import EdgeFormer
import XCTest

@testable import EdgeDemoKit

final class SessionTests: XCTestCase {
    private func golden(_ name: String) -> URL {
        let stated = ProcessInfo.processInfo.environment["EDGEFORMER_REPOSITORY"]
        let checkout = (0..<4).reduce(URL(fileURLWithPath: #filePath)) { url, _ in url.deletingLastPathComponent() }
        let repository = stated.map { URL(fileURLWithPath: $0) } ?? checkout
        return repository.appendingPathComponent("tests/golden/\(name)")
    }

    private let refusing: ImageDecoder = { _ in throw InputError("no decoder") }

    func testTheLibraryFindsBundles() throws {
        let library = BundleLibrary(folders: [golden("")])
        let found = library.bundles()
        XCTAssertEqual(
            found.map(\.name),
            [
                "places-entities", "places-fills", "places-labels", "places-spans", "tiny-entities", "tiny-fills",
                "tiny-image-text", "tiny-image", "tiny-score", "tiny-spans", "tiny-speech", "tiny-text",
            ])
        XCTAssertEqual(
            found.map(\.task),
            [
                .tokenClassification, .fillMask, .textClassification, .questionAnswering, .tokenClassification,
                .fillMask, .imageText, .imageClassification, .textScoring, .questionAnswering, .speechRecognition,
                .textClassification,
            ])
        XCTAssertEqual(BundleLibrary(folders: [golden("none")]).bundles(), [])
    }

    func testATargetWithoutAnEngineIsRefused() async throws {
        do {
            _ = try await BundleSession(golden("tiny-text.zip"), engines: [], decoder: refusing)
            XCTFail("expected an error")
        } catch {
            XCTAssertTrue(error is EngineError, "\(error)")
        }
    }

    func testASessionAnswersMeasuresAndExports() async throws {
        let engines = [EngineProvider(.onnx) { SummingEngine($0.manifest) }]
        let session = try await BundleSession(golden("tiny-text.zip"), engines: engines, decoder: refusing)
        guard case .labels(let answer) = try await session.model.answer(.text("lights")) else {
            return XCTFail("no labels")
        }
        XCTAssertEqual(answer.entries.map(\.score).reduce(0, +), 1, accuracy: 1e-9)
        XCTAssertNotNil(answer.statistics)
        let measurement = try await session.measure(rounds: 5)
        XCTAssertEqual(measurement.times.count, 5)
        let verification = try await session.model.selfTest()
        XCTAssertTrue(verification.ok, "\(verification)")
        let report = BenchReport(rows: [BenchRow(session, measurement, verification)])
        XCTAssertEqual(try JSONDecoder().decode(BenchReport.self, from: try report.json()), report)
    }

    func testPercentiles() {
        let measured = Measurement(program: "p", times: [4, 1, 3, 2], footprintBytes: nil)
        XCTAssertEqual(measured.medianMs, 2.5)
        XCTAssertEqual(measured.p90Ms, 3.7, accuracy: 1e-9)
        XCTAssertEqual(Measurement(program: "p", times: [7], footprintBytes: nil).p90Ms, 7)
    }

    func testAllAudioThatWaitsIsTakenAtOnce() async {
        let waiting = WaitingAudio()
        for block in 0..<30 { waiting.append([Float](repeating: Float(block), count: 2)) }
        var blocks = waiting.blocks.makeAsyncIterator()
        let first = await blocks.next()
        XCTAssertEqual(first, (0..<30).flatMap { [Float($0), Float($0)] })
        waiting.append([7])
        waiting.finish()
        let (second, third) = (await blocks.next(), await blocks.next())
        XCTAssertEqual(second, [7])
        XCTAssertNil(third)
    }
}

/// Makes up outputs from inputs as the engine does that the golden text bundle was recorded with.
private final class SummingEngine: Engine {
    let executedBy = "sums"
    private let programs: [ProgramSpec]

    init(_ manifest: Manifest) { programs = manifest.programs }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        let spec = try CheckedPrograms(programs).checkInputs(program, inputs)
        let total = inputs.values.flatMap(\.doubles).reduce(0) { $0 + ($1 * 64).rounded(.toNearestOrEven) }
        let values = (0..<spec.outputs[0].count).map { index in
            Float((total * Double(index + 3)).truncatingRemainder(dividingBy: 97) / 32)
        }
        return [spec.outputs[0].name: Tensor(values, shape: spec.outputs[0].shape)]
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        HostStateDecoder(self, bucket, spec)
    }
}
