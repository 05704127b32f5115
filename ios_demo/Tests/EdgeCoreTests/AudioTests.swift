import XCTest

@testable import EdgeFormer

final class AudioTests: XCTestCase {
    func testLogMel() throws {
        let golden = try Golden.json("log_mel.json")
        let data = try Golden.data("log_mel.safetensors")
        let tensors = try Safetensors.parse(data, file: "log_mel.safetensors")
        let filters = try XCTUnwrap(tensors["mel_filters"])
        for (index, item) in try Golden.items(golden["cases"]).enumerated() {
            let spec = try ManifestReader.audio((item["preprocessing"], "preprocessing"))
            let logMel = try LogMel(spec, filters: safetensors("mel_filters", filters))
            let samples = tensors["\(index)/samples"]?.floats ?? []
            XCTAssertEqual(samples.count, item["samples"].int)
            let found = try logMel.spectrogram(samples, frames: item["frames"].int)
            let expected = try XCTUnwrap(tensors["\(index)/mel"])
            XCTAssertEqual(found.shape, [1] + expected.shape)
            let worst = zip(found.doubles, expected.doubles).map { abs($0 - $1) }.max() ?? 0
            XCTAssertLessThanOrEqual(worst, 1e-4, item["name"].text ?? "")
        }
    }

    /// A file with one tensor of floats.
    private func safetensors(_ name: String, _ tensor: Tensor) throws -> Data {
        let values = try XCTUnwrap(tensor.floats)
        let header =
            "{\"\(name)\":{\"dtype\":\"F32\",\"shape\":\(tensor.shape),\"data_offsets\":[0,\(4 * values.count)]}}"
        let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Data($0) }
        return length + Data(header.utf8) + values.withUnsafeBytes { Data($0) }
    }

    func testNotFiniteSamplesAreRefused() throws {
        let golden = try Golden.json("log_mel.json")["cases"][0]
        let spec = try ManifestReader.audio((golden["preprocessing"], "preprocessing"))
        let filters = try XCTUnwrap(try Golden.tensors("log_mel.safetensors")["mel_filters"])
        let logMel = try LogMel(spec, filters: safetensors("mel_filters", filters))
        XCTAssertEqual(errorName { _ = try logMel.spectrogram([0, .nan, 0], frames: 4) }, "InputError")
        XCTAssertEqual(errorName { _ = try logMel.spectrogram([0, .infinity, 0], frames: 4) }, "InputError")
    }

    func testWhatIsFarTooQuietOrTooLoud() {
        for quiet in [[Float]([0.01, -0.02]), [1000, -2000]] {
            for (found, expected) in zip(LogMel.leveled(quiet), [Float](arrayLiteral: 0.25, -0.5)) {
                XCTAssertEqual(found, expected, accuracy: 1e-7)
            }
        }
        for same in [[], [0], [0.05], [-1]] as [[Float]] { XCTAssertEqual(LogMel.leveled(same), same) }
    }

    func testWavFilesOfAllKindsAsMonoAtAnotherRate() throws {
        let golden = try Golden.json("wav.json")
        let tensors = try Golden.tensors("wav.safetensors")
        func read(_ file: Data, _ count: Int) throws -> [Float] {
            let reader = try AudioReader(try WavSource(file), sampleRate: golden["sample_rate"].int)
            var samples: [Float] = []
            while true {
                let block = try reader.read(count)
                if block.isEmpty { return samples }
                samples += block
            }
        }
        for (index, item) in try Golden.items(golden["cases"]).enumerated() {
            let name = item["name"].text ?? ""
            guard case .uint8(let levels) = try XCTUnwrap(tensors["\(index)/file"]).values else { return XCTFail(name) }
            let file = Data(levels)
            if let words = item["error"].text {
                XCTAssertThrowsError(try read(file, 500), name) { XCTAssertTrue("\($0)".contains(words), "\($0)") }
                continue
            }
            let expected = tensors["\(index)/samples"]?.floats ?? []
            for count in [1, 777, 1 << 20] {
                let found = try read(file, count)
                XCTAssertEqual(found.count, expected.count, name)
                let worst = zip(found, expected).map { abs($0 - $1) }.max() ?? 0
                XCTAssertLessThanOrEqual(Double(worst), item["tolerance"].double, name)
            }
        }
    }

    func testPausesCutsAndWindows() throws {
        let golden = try Golden.json("silence.json")
        let tensors = try Golden.tensors("silence.safetensors")
        let (rate, longest) = (golden["sample_rate"].int, golden["longest"].int)
        for (index, item) in try Golden.items(golden["cases"]).enumerated() {
            let name = item["name"].text ?? ""
            let gain = Float(item["gain"].double)
            var samples = try XCTUnwrap(tensors["\(index)/samples"]).doubles.map { (Float($0) - 128) / 128 * gain }
            XCTAssertEqual(Silence.isSilent(samples, sampleRate: rate), item["silent"].flag, name)
            for pause in item["pauses"].items {
                let options = PauseOptions(
                    minPauseSeconds: pause["min_pause_seconds"].double, marginSeconds: pause["margin_seconds"].double)
                let found = Silence.speechRanges(samples, sampleRate: rate, options)
                XCTAssertEqual(found.map { [$0.lowerBound, $0.upperBound] }, pause["ranges"].items.map(\.ints), name)
            }
            for cut in item["cuts"].items.map(\.ints) {
                let found = Silence.quietestCut(samples, earliest: cut[0], latest: cut[1], sampleRate: rate)
                XCTAssertEqual(found, cut[2], name)
            }
            for expected in item["windows"].items {
                let window = SpeechWindow.next(Array(samples.prefix(longest + 1)), longest: longest, sampleRate: rate)
                XCTAssertEqual(window, SpeechWindow(end: expected[0].int, hasSpeech: expected[1].flag), name)
                samples.removeFirst(window.end)
            }
            XCTAssertTrue(samples.isEmpty, name)
        }
    }
}
