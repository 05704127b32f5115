import XCTest

@testable import EdgeFormer

final class Sha256Tests: XCTestCase {
    /// The examples of FIPS 180-2, appendix B.
    func testPublishedExamples() {
        let examples = [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ]
        for (text, digest) in examples {
            var hash = PortableSha256()
            hash.update(Data(text.utf8))
            XCTAssertEqual(hash.hexDigest(), digest)
            XCTAssertEqual(FileHash.sha256(Data(text.utf8)), digest)
        }
    }

    func testAnyPiecesGiveTheSame() {
        var bytes = Data()
        for index in 0..<1000 { bytes.append(UInt8(truncatingIfNeeded: index * 7)) }
        for size in [1, 63, 64, 65, 300] {
            var hash = PortableSha256()
            for start in stride(from: 0, to: bytes.count, by: size) { hash.update(bytes.dropFirst(start).prefix(size)) }
            XCTAssertEqual(hash.hexDigest(), FileHash.sha256(bytes))
        }
    }
}
