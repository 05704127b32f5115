import Foundation

/// A speech model's tokens as text: byte-level BPE (Radford et al. 2019, GPT-2). Text tokens are those below `end`.
struct SpeechTokenizer: Sendable {
    private static let maxFileBytes = 256 << 20
    /// Code points of the scripts that put no spaces between words.
    private static let withoutSpaces: [ClosedRange<UInt32>] = [
        0x0E00...0x0EFF,  // Thai, Lao
        0x1000...0x109F,  // Myanmar
        0x2E80...0x312F,  // ideographs' parts and punctuation, hiragana, katakana
        0x3190...0x9FFF,  // ideographs, without Hangul
        0xF900...0xFAFF,
        0xFE30...0xFE4F,
        0xFF00...0xFF9F,  // the same and Latin in full width
        0x20000...0x3FFFF,
    ]

    private let end: Int
    private let bytes: [Int: [UInt8]]

    /// Read the `vocab` of a tokenizers file.
    ///
    /// - Throws: `BundleError`: no such file, or text tokens that are no byte-level BPE.
    init(_ data: Data, end: Int, file: String) throws {
        let value = try StrictJson.parse(data, file: file, maxBytes: Self.maxFileBytes)
        guard case .object(let object) = value, case .object(let model)? = object["model"],
            case .object(let vocab)? = model["vocab"]
        else {
            throw BundleError("\(file): expected a tokenizers file with a model and its vocab")
        }
        let byteOf = Self.byteOfCharacter()
        var bytes: [Int: [UInt8]] = [:]
        for (written, value) in zip(vocab.keys, vocab.values) {
            let id = try Record.integer(value, "\(file): \(shown(written))", 0...Int(Int32.max))
            guard id < end else { continue }
            let found = written.unicodeScalars.compactMap { byteOf[$0.value] }
            guard found.count == written.unicodeScalars.count else {
                throw BundleError("\(file): the token \(id) is \(shown(written)), expected byte-level BPE")
            }
            bytes[id] = found
        }
        self.end = end
        self.bytes = bytes
    }

    /// The text of tokens; special ones have none.
    ///
    /// Bytes at the end that are only the start of a character are held back; others that are no UTF-8 become U+FFFD.
    ///
    /// - Throws: `BundleError`: the file has no such token.
    func text(_ tokens: some Sequence<Int>) throws -> String {
        var all: [UInt8] = []
        for token in tokens where token < end {
            guard let found = bytes[token] else { throw BundleError("the tokenizer has no token \(token)") }
            all += found
        }
        return String(decoding: all.dropLast(Self.unfinishedBytes(all)), as: UTF8.self)
    }

    /// Texts as one, with spaces between them where their scripts have spaces; a translation has its own script's.
    static func join(_ texts: [String]) -> String {
        var joined = ""
        for text in texts where !text.isEmpty {
            if !joined.isEmpty, hasSpaces(joined, text) { joined += " " }
            joined += text
        }
        return joined
    }

    /// Whether the scripts in which one text ends and another begins put spaces between words.
    static func hasSpaces(_ before: String, _ after: String) -> Bool {
        let neighbours = [before.unicodeScalars.last, after.unicodeScalars.first].compactMap { $0?.value }
        return !withoutSpaces.contains { script in neighbours.contains { script.contains($0) } }
    }

    /// How many bytes at the end begin a character that is not complete (The Unicode Standard, table 3-7).
    private static func unfinishedBytes(_ bytes: [UInt8]) -> Int {
        for count in 1...3 where count <= bytes.count {
            let tail = bytes.suffix(count)
            guard let lead = tail.first, lead & 0xC0 != 0x80 else { continue }
            let length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2
            guard (0xC2...0xF4).contains(lead), count < length else { return 0 }
            guard let second = tail.dropFirst().first else { return count }
            let allowed: ClosedRange<UInt8> =
                switch lead {
                case 0xE0: 0xA0...0xBF
                case 0xED: 0x80...0x9F
                case 0xF0: 0x90...0xBF
                case 0xF4: 0x80...0x8F
                default: 0x80...0xBF
                }
            return allowed.contains(second) ? count : 0
        }
        return 0
    }

    /// The byte that each character of the alphabet stands for: printable ones of Latin-1 for themselves, the other bytes,
    /// in order, for characters from U+0100 on.
    private static func byteOfCharacter() -> [UInt32: UInt8] {
        let printable = Set(Array(0x21...0x7E) + Array(0xA1...0xAC) + Array(0xAE...0xFF) as [UInt32])
        let moved = (0...0xFF as ClosedRange<UInt32>).filter { !printable.contains($0) }
        var table = Dictionary(uniqueKeysWithValues: printable.map { ($0, UInt8($0)) })
        for (index, byte) in moved.enumerated() { table[0x100 + UInt32(index)] = UInt8(byte) }
        return table
    }
}

extension String {
    /// The text without white space around it, as the reference's `strip`: Unicode's, and the ASCII separators 1C to 1F.
    func stripped() -> String {
        func isSpace(_ scalar: Unicode.Scalar) -> Bool {
            UnicodeData.whiteSpace.contains(scalar.value) || (0x1C...0x1F).contains(scalar.value)
        }
        let scalars = unicodeScalars.drop(while: isSpace)
        guard let last = scalars.lastIndex(where: { !isSpace($0) }) else { return "" }
        return String(scalars[...last])
    }
}
