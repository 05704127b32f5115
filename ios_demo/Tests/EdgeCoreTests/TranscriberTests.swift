import XCTest

@testable import EdgeFormer

final class TranscriberTests: XCTestCase {
    private func opened() throws -> (transcriber: Transcriber, samples: [Float], text: String) {
        let bundle = try ModelBundle.open(Golden.url("tiny-speech.zip"))
        let longest = try XCTUnwrap(try Vectors(bundle).cases.last)
        guard case .audio(let file, let count) = longest.raw.form, case .transcript(let text, _, _) = longest.expected
        else {
            throw XCTSkip("no audio")
        }
        let transcriber = try Transcriber(bundle, engine: try RecordedEngine(bundle))
        let samples = try WavSource.recorded(
            try bundle.readBytes(file), sampleRate: transcriber.sampleRate, count: count, file: file)
        return (transcriber, samples, text)
    }

    /// What was recorded has no timestamps.
    private var plain: TranscribeOptions {
        var options = TranscribeOptions()
        options.timestamps = false
        return options
    }

    func testTheRecordingSaysItsText() async throws {
        let (transcriber, samples, text) = try opened()
        let found = try await transcriber.transcribe(samples, options: plain)
        XCTAssertEqual(found.text, text)
        XCTAssertEqual(found.language, "en")
        XCTAssertEqual(found.statistics.windows, 1)
        XCTAssertEqual(found.duration, Double(samples.count) / Double(transcriber.sampleRate), accuracy: 1e-9)
    }

    func testARecordingIsReadAsItIsHeard() async throws {
        let (transcriber, samples, text) = try opened()
        let rate = transcriber.sampleRate
        let recording = try AudioReader(SamplesSource(samples, rate), sampleRate: rate)
        let found = try await transcriber.transcribe(recording, options: plain)
        XCTAssertEqual(found.text, text)
        let other = try AudioReader(SamplesSource(samples, 8000), sampleRate: 8000)
        do {
            _ = try await transcriber.transcribe(other)
            XCTFail("expected an error")
        } catch {
            XCTAssertTrue(error is InputError, "\(error)")
        }
    }

    func testLongAudioIsHeardInWindows() async throws {
        let (transcriber, samples, _) = try opened()
        let long = [[Float]](repeating: samples, count: 3).flatMap { $0 }
        let found = try await transcriber.transcribe(long, options: plain)
        XCTAssertGreaterThan(found.statistics.windows, 1)
        for (before, after) in zip(found.segments, found.segments.dropFirst()) {
            XCTAssertLessThanOrEqual(before.end, after.start + 1e-9)
        }
    }

    func testHalfASecondOfSilenceStaysBehindTheAudio() throws {
        let bundle = try ModelBundle.open(Golden.url("tiny-speech.zip"))
        let model = try SpeechModel(bundle, try RecordedEngine(bundle))
        let (half, whole) = (model.spec.buckets[0], model.spec.buckets[1])
        XCTAssertEqual(try model.bucket(for: 0), half)
        for samples in [1, model.audio.windowSamples / 2, model.audio.windowSamples] {
            XCTAssertEqual(try model.bucket(for: samples), whole)
        }
        XCTAssertThrowsError(try model.bucket(for: model.audio.windowSamples + 1))
    }

    func testSilenceSaysNothing() async throws {
        let (transcriber, samples, _) = try opened()
        let found = try await transcriber.transcribe([Float](repeating: 0, count: samples.count))
        XCTAssertEqual(found.text, "")
        XCTAssertEqual(found.statistics.windows, 0)
        let nothing = try await transcriber.transcribe([])
        XCTAssertEqual(nothing.text, "")
    }

    func testAStreamEndsWithFinalText() async throws {
        let (transcriber, samples, _) = try opened()
        try await transcriber.openStream(options: plain)
        var updates: [StreamUpdate] = []
        for start in stride(from: 0, to: samples.count, by: 1600) {
            updates += try await transcriber.feed(Array(samples[start..<min(start + 1600, samples.count)]))
        }
        let finished = try await transcriber.finishStream()
        let end = try XCTUnwrap(finished)
        updates += end.updates
        XCTAssertEqual(end.transcript.segments, updates.flatMap(\.final))
        XCTAssertFalse(end.transcript.text.isEmpty)
        let nothing = try await transcriber.finishStream()
        XCTAssertNil(nothing)
    }

    func testTwoGuessesAgreeInWholeWords() {
        XCTAssertEqual(SpeechStream.agreed("", "the old"), "")
        XCTAssertEqual(SpeechStream.agreed("The old beer.", "the old beard is"), "the old")
        XCTAssertEqual(SpeechStream.agreed("the old beer.", "The old beer, which"), "The old beer")
        XCTAssertEqual(SpeechStream.agreed("the old", "the new beer", "the old beer"), "the")
        XCTAssertEqual(SpeechStream.agreed("the", "the old beer is", "the old beer"), "the old beer")
        XCTAssertEqual(SpeechStream.agreed("今天天", "今天天气很好"), "今天天")
        XCTAssertEqual(SpeechStream.agreed("don't do", "Don't  do it"), "Don't  do")
    }

    func testWhatTheModelCannotDoIsRefused() async throws {
        let (transcriber, samples, _) = try opened()
        var options = TranscribeOptions()
        options.task = .translate
        do {
            _ = try await transcriber.transcribe(samples, options: options)
            XCTFail("expected an error")
        } catch {
            XCTAssertTrue(error is InputError, "\(error)")
        }
    }
}

/// Samples as two equal channels.
private final class SamplesSource: AudioSource {
    let sampleRate: Int
    let channels = 2
    private var rest: ArraySlice<Float>

    init(_ samples: [Float], _ sampleRate: Int) { (rest, self.sampleRate) = (samples[...], sampleRate) }

    func read(_ count: Int) -> [Float] {
        defer { rest = rest.dropFirst(count) }
        return rest.prefix(count).flatMap { [$0, $0] }
    }
}
