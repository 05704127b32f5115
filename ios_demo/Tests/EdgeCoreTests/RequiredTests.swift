import XCTest

@testable import EdgeFormer

final class RequiredTests: XCTestCase {
    /// Linux checks no signatures: what fits its form there ends in an InputError.
    func testKeysAndSignatures() throws {
        let golden = try Golden.json("signatures.json")
        let manifest = Data((golden["manifest"].text ?? "").utf8)
        for item in try Golden.items(golden["cases"]) {
            let name = item["name"].text ?? ""
            let keys = item["keys"].isNull ? nil : item["keys"].items.map { bytes(of: $0.text ?? "") }
            let found = errorName {
                let required = try Required(keys: keys)
                try required.check(item["signature"].text.map(bytes), of: manifest)
            }
            #if canImport(CryptoKit)
                XCTAssertEqual(found, item["error"].text, name)
            #else
                let isLeftOpen = keys != nil && found == "InputError"
                XCTAssertTrue(found == item["error"].text || isLeftOpen, "\(name): \(found ?? "no error")")
                if name.contains("small order") || name.contains("canonical") || name.hasPrefix("S ") {
                    XCTAssertEqual(found, item["error"].text, name)
                }
            #endif
        }
    }

    func testTextsOfReleases() throws {
        let golden = try Golden.json("releases.json")
        let bundle = try XCTUnwrap(golden["bundle"].text)
        for item in try Golden.items(golden["cases"]) {
            let name = item["name"].text ?? ""
            let text = Data((item["text"].text ?? "").utf8)
            if item["version"].isNull {
                XCTAssertEqual(errorName { _ = try Release.version(text, name: bundle) }, "BundleError", name)
            } else {
                XCTAssertEqual(try Release.version(text, name: bundle), item["version"].int, name)
            }
        }
    }

    func testNamesAndVersionsThatAreAskedFor() throws {
        for item in try Golden.items(try Golden.json("releases.json")["required"]) {
            let found = errorName {
                let wanted = item["required"]
                let least = wanted["version"].isNull ? nil : wanted["version"].int
                try Required(name: wanted["name"].text, leastVersion: least)
                    .check(name: item["bundle"].text ?? "", version: item["found"].isNull ? nil : item["found"].int)
            }
            XCTAssertEqual(found, item["error"].text, item["name"].text ?? "")
        }
    }

    func testTheChecksumOfZips() {
        XCTAssertEqual(Crc32.of(Data("123456789".utf8)), 0xCBF4_3926)
        XCTAssertEqual(Crc32.of(Data()), 0)
    }
}
