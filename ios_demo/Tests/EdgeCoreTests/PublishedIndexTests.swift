import XCTest

@testable import EdgeFormer

final class PublishedIndexTests: XCTestCase {
    /// Linux checks no signatures: there what the right key signed is read without its signature.
    func testIndexesOfPublishedBundles() throws {
        let golden = try Golden.json("published.json")
        let keys = [bytes(of: golden["key"].text ?? "")]
        let now = try PublishedIndex.time(golden["now"].text ?? "")
        for item in try Golden.items(golden["cases"]) {
            let name = item["name"].text ?? ""
            func read(_ text: String) throws -> PublishedIndex {
                let file = Data(text.utf8)
                #if canImport(CryptoKit)
                    return try PublishedIndex(file, keys: keys)
                #else
                    let (signature, content) = try PublishedIndex.parts(file)
                    XCTAssertEqual(signature.count, 64)
                    return try PublishedIndex(content, of: file)
                #endif
            }
            var index: PublishedIndex?
            let found = errorName {
                let known = try item["known"].text.map(read)
                index = try read(item["text"].text ?? "")
                try index?.checkNewer(than: known, now: now)
            }
            #if !canImport(CryptoKit)
                if ["another key's", "another domain", "a changed number", "a changed signature"].contains(name) {
                    XCTAssertEqual(
                        errorName { _ = try PublishedIndex(Data((item["text"].text ?? "").utf8), keys: keys) },
                        "InputError", name)
                    continue
                }
            #endif
            XCTAssertEqual(found, item["error"].text, name)
            if item["error"].isNull {
                XCTAssertEqual(index?.number, item["facts"]["number"].int, name)
                XCTAssertEqual(index?.bundles["tiny"]?.id, item["facts"]["id"].text, name)
            }
        }
    }

    func testTimes() throws {
        for (text, seconds) in [
            ("2000-03-01T00:00:00Z", 951_868_800.0), ("2027-01-10T00:00:00Z", 1_799_539_200),
            ("2028-02-29T23:59:59Z", 1_835_481_599), ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            XCTAssertEqual(try PublishedIndex.time(text).timeIntervalSince1970, seconds, text)
        }
        XCTAssertEqual(errorName { _ = try PublishedIndex.time("2100-02-29T00:00:00Z") }, "BundleError")
    }

    func testWhereAFileLies() {
        let sha256 = String(repeating: "ab", count: 32)
        XCTAssertEqual(PublishedFile(sha256: sha256, size: 1).address, "files/ab/\(sha256)")
    }
}
