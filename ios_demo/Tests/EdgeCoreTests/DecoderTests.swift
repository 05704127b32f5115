import XCTest

@testable import EdgeFormer

final class DecoderTests: XCTestCase {
    private func spec() throws -> (bundle: ModelBundle, spec: Transcription) {
        let bundle = try ModelBundle.open(Golden.url("tiny-speech.zip"))
        guard case .transcription(let spec) = bundle.manifest.postprocessing else { throw XCTSkip("no speech") }
        return (bundle, spec)
    }

    /// Rows go where they belong: keys [H, D, L], values [H, L, D].
    func testHostCacheLayout() throws {
        let (bundle, spec) = try spec()
        let engine = CountingEngine(bundle.manifest)
        let bucket = spec.buckets[0]
        let decoder = HostStateDecoder(engine, bucket, spec)
        let mask = Rows.allHidden(decoder.rows)
        XCTAssertEqual(errorName { _ = try decoder.step(0, position: 0, row: 0, mask: mask) }, "EngineError")
        try decoder.encode(Tensor(zerosOf: engine.programs[bucket.encode]!.inputs[0]))
        _ = try decoder.prefill([5, 6], position: 0, row: 1, mask: mask, wanted: (0, 1))
        _ = try decoder.step(7, position: 2, row: 3, mask: mask)
        _ = try decoder.step(7, position: 3, row: 4, mask: mask)
        let lines = spec.heads * spec.headDim
        let keys = try XCTUnwrap(engine.last["self_k_0"]?.floats)
        let values = try XCTUnwrap(engine.last["self_v_0"]?.floats)
        for head in 0..<spec.heads {
            for part in 0..<spec.headDim {
                let line = head * spec.headDim + part
                func key(_ row: Int) -> Float { keys[line * bucket.rows + row] }
                func value(_ row: Int) -> Float { values[(head * bucket.rows + row) * spec.headDim + part] }
                XCTAssertEqual(
                    (0..<5).map(key),
                    [0, Float(line * spec.prefillTokens), Float(line * spec.prefillTokens + 1), Float(line), 0])
                let first = head * spec.prefillTokens * spec.headDim + part
                XCTAssertEqual((0..<5).map(value), [0, Float(first), Float(first + spec.headDim), Float(line), 0])
            }
        }
        XCTAssertEqual(keys.count, lines * bucket.rows)
    }

    func testPrefillPadsWithTheLastTokenAndRowsBeyondTheCache() throws {
        let (_, spec) = try spec()
        let bucket = spec.buckets[0]
        let programs = ListeningPrograms(spec)
        let decoder = ProgramStateDecoder(programs, bucket, spec)
        try decoder.encode(Tensor([Float(0)], shape: [1]))
        let mask = Rows.allHidden(decoder.rows)
        _ = try decoder.prefill([5, 6], position: 3, row: 4, mask: mask, wanted: (0, 1))
        let extra = spec.prefillTokens - 2
        XCTAssertEqual(programs.last["tokens"]?.doubles, [5, 6] + [Double](repeating: 6, count: extra))
        XCTAssertEqual(programs.last["positions"]?.doubles, [3, 4] + [Double](repeating: 4, count: extra))
        XCTAssertEqual(
            programs.last["rows"]?.doubles, [4, 5] + [Double](repeating: Double(decoder.rows), count: extra))
        XCTAssertEqual(errorName { _ = try decoder.step(1, position: 0, row: decoder.rows, mask: mask) }, "InputError")
        XCTAssertEqual(errorName { _ = try decoder.step(1, position: 0, row: 0, mask: [0]) }, "InputError")
    }

    func testWithoutSharedStateThePromptIsFedTokenByToken() throws {
        let (_, spec) = try spec()
        let bucket = spec.buckets[0]
        let programs = ListeningPrograms(spec)
        let decoder = ProgramStateDecoder(programs, bucket, spec, sharesState: false)
        try decoder.encode(Tensor([Float(0)], shape: [1]))
        let context = try Context(decoder, Prompt(tokens: [9, 8, 7]))
        XCTAssertEqual(programs.called, [bucket.decode, bucket.decode, bucket.decode])
        XCTAssertEqual(programs.last["row"]?.doubles, [2])
        XCTAssertEqual(programs.last["mask"]?.floats, [0, 0] + [Float](repeating: Rows.hidden, count: bucket.rows - 2))
        XCTAssertEqual(context.position, 3)
    }

    func testInputsAreCheckedAgainstTheManifest() throws {
        let (bundle, spec) = try spec()
        let checked = CheckedPrograms(bundle.manifest.programs)
        let name = spec.buckets[0].encode
        XCTAssertEqual(errorName { _ = try checked.checkInputs("none", [:]) }, "InputError")
        XCTAssertEqual(errorName { _ = try checked.checkInputs(name, [:]) }, "InputError")
        XCTAssertEqual(
            errorName { _ = try checked.checkInputs(name, ["mel": Tensor([Float(0)], shape: [1])]) }, "InputError")
        let program = try XCTUnwrap(bundle.manifest.programs.first { $0.name == name })
        XCTAssertEqual(errorName { _ = try checked.checkOutputs(program, [:]) }, "EngineError")
    }
}

/// Numbers every output from 0 on, and remembers its last inputs.
private final class CountingEngine: Engine, @unchecked Sendable {
    let executedBy = "counting"
    let programs: [String: ProgramSpec]
    private(set) var last: [String: Tensor] = [:]

    init(_ manifest: Manifest) {
        programs = Dictionary(uniqueKeysWithValues: manifest.programs.map { ($0.name, $0) })
    }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        last = try CheckedPrograms(Array(programs.values)).checkInputs(program, inputs).name == program ? inputs : [:]
        let outputs = programs[program]?.outputs ?? []
        return Dictionary(
            uniqueKeysWithValues: outputs.map { ($0.name, Tensor((0..<$0.count).map(Float.init), shape: $0.shape)) })
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) -> any SpeechDecoder {
        HostStateDecoder(self, bucket, spec)
    }
}

/// Remembers what it was steered with.
private final class ListeningPrograms: BucketPrograms {
    private(set) var last: [String: Tensor] = [:]
    private(set) var called: [String] = []
    private let spec: Transcription

    init(_ spec: Transcription) { self.spec = spec }

    func encodeAudio(_ mel: Tensor) {}

    func run(_ program: String, _ steering: [String: Tensor]) -> [String: Tensor] {
        last = steering
        called.append(program)
        return ["logits": Tensor([Float](repeating: 0, count: 2 * spec.vocabSize), shape: [2, spec.vocabSize])]
    }
}
