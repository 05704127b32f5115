import XCTest

@testable import EdgeFormer

final class ManifestTests: XCTestCase {
    func testGoodAndBadManifests() throws {
        let cases = try Golden.cases("manifests.json")
        var texts: [String: String] = [:]
        for item in cases {
            let name = try XCTUnwrap(item["name"].text)
            if let text = item["text"].text { texts[name] = text }
            let text = try XCTUnwrap(item["text"].text ?? edited(item, texts))
            guard let expected = item["error"].text else {
                try check(try Manifest.parse(Data(text.utf8)), item["facts"], name)
                continue
            }
            XCTAssertEqual(errorName { _ = try Manifest.parse(Data(text.utf8)) }, expected, name)
        }
        XCTAssertGreaterThan(cases.count, 100)
    }

    /// The base's text with one exact replacement. Bytes are compared: Swift's texts are equal in other Unicode forms too.
    private func edited(_ item: JsonValue, _ texts: [String: String]) -> String? {
        guard let base = item["base"].text.flatMap({ texts[$0] }), let find = item["find"].text,
            let put = item["put"].text
        else { return nil }
        var bytes = Data(base.utf8)
        guard let range = bytes.range(of: Data(find.utf8)) else { return nil }
        bytes.replaceSubrange(range, with: Data(put.utf8))
        return String(decoding: bytes, as: UTF8.self)
    }

    private func check(_ manifest: Manifest, _ facts: JsonValue, _ name: String) throws {
        XCTAssertEqual(manifest.name, facts["name"].text, name)
        XCTAssertEqual(manifest.task.rawValue, facts["task"].text, name)
        XCTAssertEqual(manifest.target.rawValue, facts["target"].text, name)
        XCTAssertEqual(manifest.programs.map(\.name), facts["programs"].items.map(\.text), name)
        XCTAssertEqual(manifest.files.keys.sorted(), facts["files"].items.map { $0.text ?? "" }, name)
        XCTAssertEqual(manifest.requires.androidApi, facts["android_api"].isNull ? nil : facts["android_api"].int, name)
        let before =
            switch manifest.preprocessing {
            case .text: "text"
            case .image: "image"
            case .imageText: "image-text"
            case .audio: "audio"
            }
        XCTAssertEqual(before, facts["preprocessing"].text, name)
    }

    func testInvalidUtf8IsRefused() {
        XCTAssertEqual(errorName { _ = try Manifest.parse(Data([0x7B, 0xFF, 0x7D])) }, "BundleError")
    }

    func testCharactersThatATerminalObeysAreRefused() throws {
        let base = try XCTUnwrap(try Golden.cases("manifests.json").first { $0["name"].text == "text" }?["text"].text)
        for character in ["\u{7F}", "\u{80}", "\u{9B}", "\u{9F}", "\u{202A}", "\u{202E}", "\u{2066}", "\u{2069}"] {
            let text = base.replacingOccurrences(of: "\"tests/tiny", with: "\"tests/tiny\(character)")
            XCTAssertNotEqual(Data(text.utf8), Data(base.utf8))
            XCTAssertEqual(errorName { _ = try Manifest.parse(Data(text.utf8)) }, "BundleError")
        }
    }

    func testASizeThatAFileOfItsKindCannotHaveIsRefused() throws {
        let base = try XCTUnwrap(try Golden.cases("manifests.json").first { $0["name"].text == "text" }?["text"].text)
        try FileSizes.check(try Manifest.parse(Data(base.utf8)))
        let large = base.replacingOccurrences(
            of: #""size": [0-9]+"#, with: "\"size\": 4294967295", options: .regularExpression)
        let manifest = try Manifest.parse(Data(large.utf8))
        XCTAssertEqual(errorName { try FileSizes.check(manifest) }, "BundleError")
    }
}
