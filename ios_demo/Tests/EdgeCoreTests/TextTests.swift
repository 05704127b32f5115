import XCTest

@testable import EdgeFormer

final class TextTests: XCTestCase {
    /// The zoo's tokenizer lies in the repository; others are in the golden file.
    private func tokenizer(_ stated: String) throws -> TextTokenizer {
        let data =
            stated.hasPrefix("{")
            ? Data(stated.utf8) : try Data(contentsOf: Golden.repository.appendingPathComponent(stated))
        return try TextTokenizer(data, file: "tokenizer.json")
    }

    func testEveryLineAsTheReference() throws {
        let golden = try Golden.json("wordpiece.json")
        let tokenizers = try Dictionary(
            uniqueKeysWithValues: golden["tokenizers"].members.map { ($0.key, try tokenizer($0.value.text ?? "")) })
        for item in try Golden.items(golden["cases"]) {
            let found = try XCTUnwrap(tokenizers[item["tokenizer"].text ?? ""])
                .encode(try XCTUnwrap(item["text"].text), item["pair"].text, longest: item["max"].int)
            let context = "\(item["tokenizer"].text ?? "") \(shown(item["text"].text ?? "", limit: 200))"
            XCTAssertEqual(found.ids, item["ids"].ints, context)
            XCTAssertEqual(found.typeIds, item["types"].ints, context)
            XCTAssertEqual(found.truncated, item["truncated"].flag, context)
        }
    }

    func testATokenizerHasBounds() throws {
        for item in try Golden.items(try Golden.json("hostile_tokenizers.json")["cases"]) {
            let (name, file) = (item["name"].text ?? "", item["file"].text ?? "")
            let found = errorName { _ = try TextTokenizer(Data(file.utf8), file: "tokenizer.json") }
            XCTAssertEqual(found, item["error"].text, name)
        }
    }

    func testZooTextsAndTypes() throws {
        let golden = try Golden.json("text.json")
        let tokenizer = try tokenizer("\(golden["model"].text ?? "")/tokenizer.json")
        for item in try Golden.items(golden["cases"]) {
            let found = tokenizer.encode(item["text"].text ?? "", item["pair"].text, longest: golden["seq_len"].int)
            XCTAssertEqual(found.ids, item["input_ids"].ints)
            XCTAssertEqual(found.typeIds, item["token_type_ids"].ints)
        }
    }

    /// Every code point through every step, by hashes of 4096 results.
    func testEveryCodePoint() throws {
        let golden = try Golden.json("unicode.json")
        let normalizers = [
            "all": BertNormalizer(cleanText: true, handleChineseChars: true, stripAccents: true, lowercase: true),
            "clean": BertNormalizer(cleanText: true, handleChineseChars: false, stripAccents: false, lowercase: false),
            "chinese": BertNormalizer(
                cleanText: false, handleChineseChars: true, stripAccents: false, lowercase: false),
            "strip": BertNormalizer(cleanText: false, handleChineseChars: false, stripAccents: true, lowercase: false),
            "lower": BertNormalizer(cleanText: false, handleChineseChars: false, stripAccents: false, lowercase: true),
        ]
        for block in try Golden.items(golden["blocks"]) {
            let first = UInt32(block["first"].int)
            let codes = (first..<first + UInt32(golden["block"].int)).filter { Unicode.Scalar($0) != nil }
            for (name, normalizer) in normalizers {
                XCTAssertEqual(
                    hash(codes.map { normalizer.normalize([$0]) }), block[name].text, "\(name) from \(first)")
            }
            let split = codes.map { Array(BertNormalizer.words([0x61, $0, 0x62]).joined(separator: [0x7C])) }
            XCTAssertEqual(hash(split), block["split"].text, "split from \(first)")
        }
    }

    func testMarksInCanonicalOrder() throws {
        let normalizer = BertNormalizer(cleanText: true, handleChineseChars: true, stripAccents: true, lowercase: true)
        for item in try Golden.cases("unicode.json") {
            let text = try XCTUnwrap(item["text"].text)
            let expected = try XCTUnwrap(item["normalized"].text).unicodeScalars.map(\.value)
            XCTAssertEqual(normalizer.normalize(text.unicodeScalars.map(\.value)), expected, shown(text))
        }
    }

    private func hash(_ results: [[UInt32]]) -> String {
        var bytes: [UInt8] = []
        for result in results {
            for code in result { bytes += Unicode.Scalar(code).map { Array(String(Character($0)).utf8) } ?? [] }
            bytes.append(0x0A)
        }
        return String(FileHash.sha256(Data(bytes)).prefix(16))
    }

    /// Hashes of all tokens with their places, as make_tokenizers.py takes them.
    func testTokenizersOfEveryKind() throws {
        let golden = try Golden.json("tokenizers.json")
        let texts = golden["texts"].items.compactMap(\.text)
        let blocks = golden["firsts"].ints.map { first in
            (first..<first + golden["block"].int).compactMap { Unicode.Scalar(UInt32($0)) }
                .map { "\($0)a \($0)" }.joined()
        }
        for item in try Golden.items(golden["cases"]) {
            let name = try XCTUnwrap(item["tokenizer"].text)
            let tokenizer = try tokenizer(try XCTUnwrap(golden["tokenizers"][name].text))
            XCTAssertEqual(texts.map { hash(tokenizer, $0) }.joined(separator: " "), item["texts"].text, name)
            let pairs = (0..<8).map { hash(tokenizer, texts[$0 + 1], texts[$0]) }
            XCTAssertEqual(pairs.joined(separator: " "), item["pairs"].text, name)
            guard let expected = item["blocks"].text, !expected.isEmpty else { continue }
            XCTAssertEqual(blocks.map { hash(tokenizer, $0) }.joined(separator: " "), expected, name)
        }
    }

    private func hash(_ tokenizer: TextTokenizer, _ text: String, _ pair: String? = nil) -> String {
        let found = tokenizer.encodeWhole(text, pair)
        let rows = found.tokens.enumerated().map { index, token in
            "\(found.ids[index]),\(found.typeIds[index]),\(token?.start ?? 0),\(token?.end ?? 0),\(token?.word ?? -1);"
        }
        return String(FileHash.sha256(Data(rows.joined().utf8)).prefix(6))
    }
}
