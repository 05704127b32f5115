/// The normalizer and the pre-tokenizer of BERT as the tokenizers library has them, on arrays of code points.
struct BertNormalizer: Sendable {
    /// Removes control characters and makes every white space a plain one.
    let cleanText: Bool
    /// Puts spaces around ideographs, so that each is a word.
    let handleChineseChars: Bool
    /// Removes the marks of decomposed characters.
    let stripAccents: Bool
    /// Makes lower case, character by character.
    let lowercase: Bool

    /// Read a step of a tokenizers file.
    init(_ value: JsonValue, path: String) throws {
        let keys = ["type", "clean_text", "handle_chinese_chars", "strip_accents", "lowercase"]
        let record = try Record(value, at: path, keys: keys)
        cleanText = try record.flag("clean_text")
        handleChineseChars = try record.flag("handle_chinese_chars")
        lowercase = try record.flag("lowercase")
        stripAccents = try record.optional("strip_accents") { try $0.flag($1) } ?? lowercase
    }

    /// A normalizer with these steps.
    init(cleanText: Bool, handleChineseChars: Bool, stripAccents: Bool, lowercase: Bool) {
        self.cleanText = cleanText
        self.handleChineseChars = handleChineseChars
        self.stripAccents = stripAccents
        self.lowercase = lowercase
    }

    /// The steps in the library's order: clean, ideographs, accents, case.
    func normalize(_ text: Codes) -> Codes {
        var codes = text
        if cleanText {
            codes = codes.flatMap {
                UnicodeData.removed.contains($0) ? [] : [UnicodeData.blank.contains($0) ? 0x20 : $0]
            }
        }
        if handleChineseChars {
            codes = codes.flatMap { UnicodeData.ideographs.contains($0) ? [0x20, $0, 0x20] : [$0] }
        }
        if stripAccents {
            codes = UnicodeData.decompose(codes).filter { !UnicodeData.nonspacing.contains($0) }
        }
        if lowercase {
            codes = codes.flatMap { UnicodeData.lowered[$0] ?? [$0] }
        }
        return codes
    }

    /// The same of code points alone.
    func normalize(_ codes: [UInt32]) -> [UInt32] { normalize(Codes(codes)).codes }

    /// The words of a text: split at white space, every punctuation character a word of its own.
    static func words(_ codes: [UInt32]) -> [ArraySlice<UInt32>] {
        var words: [ArraySlice<UInt32>] = []
        var start = 0
        for (index, code) in codes.enumerated() {
            let isPunctuation = UnicodeData.punctuation.contains(code)
            guard isPunctuation || UnicodeData.whiteSpace.contains(code) else { continue }
            if start < index { words.append(codes[start..<index]) }
            if isPunctuation { words.append(codes[index...index]) }
            start = index + 1
        }
        if start < codes.count { words.append(codes[start...]) }
        return words
    }
}
