/// What makes tokens of words.
protocol TokenModel: Sendable {
    /// The tokens with their ids.
    var vocabulary: [[UInt32]: Int] { get }
    /// The token for what the vocabulary does not have, as transformers asks for it; nil: there is none.
    var unknown: [UInt32]? { get }
    /// Whether pieces that continue a word look otherwise than those that begin one.
    var marksContinuation: Bool { get }

    /// Takes each token of a word, and which of its characters it has.
    func tokenize(_ word: [UInt32], _ take: (_ id: Int, _ range: Range<Int>) -> Void)
}

extension TokenModel {
    static func vocabulary(_ record: Record, largest: Int) throws -> [[UInt32]: Int] {
        let found = try record.members("vocab", count: 0...10_000_000) { token, value, path in
            guard token.unicodeScalars.count <= 1024 else {
                throw BundleError("\(path): expected at most 1024 characters")
            }
            return try Record.integer(value, path, 0...largest)
        }
        return Dictionary(found.map { ($0.key.unicodeScalars.map(\.value), $0.value) }, uniquingKeysWith: { $1 })
    }

    /// The tokens <0x00> to <0xFF>.
    static func byteTokens(_ vocabulary: [[UInt32]: Int]) -> [Int?] {
        let digits = Array("0123456789ABCDEF")
        return (0..<256).map { vocabulary["<0x\(digits[$0 / 16])\(digits[$0 % 16])>".unicodeScalars.map(\.value)] }
    }
}

/// Read the `model` of a tokenizers file; the oldest ones of BPE name no type.
func readModel(_ value: JsonValue, _ path: String) throws -> any TokenModel {
    guard case .object(let object) = value else { throw BundleError("\(path): expected an object") }
    guard let stated = object["type"] else { return try Bpe(value, path) }
    switch try Record.text(stated, path) {
    case "WordPiece": return try WordPiece(value, path)
    case "BPE": return try Bpe(value, path)
    case "Unigram": return try Unigram(value, path)
    default: throw BundleError("\(path): expected WordPiece, BPE or Unigram, found \(stated.kind)")
    }
}

/// The longest piece of the vocabulary first, then the longest that continues it (Devlin et al. 2019).
struct WordPiece: TokenModel {
    /// Of a word, whose time is cubic in it.
    private static let maxWordLength = 200
    let vocabulary: [[UInt32]: Int]
    let unknown: [UInt32]?
    var marksContinuation: Bool { !continuation.isEmpty }
    private let unknownId: Int
    private let continuation: [UInt32]
    private let maxWordLength: Int

    init(_ value: JsonValue, _ path: String) throws {
        let record = try Record(
            value, at: path,
            keys: ["type", "continuing_subword_prefix", "max_input_chars_per_word", "unk_token", "vocab"])
        vocabulary = try Self.vocabulary(record, largest: Int(Int32.max))
        continuation = try record.text("continuing_subword_prefix", count: 0...64).unicodeScalars.map(\.value)
        maxWordLength = try record.integer("max_input_chars_per_word", 0...Self.maxWordLength)
        let unknown = try record.text("unk_token").unicodeScalars.map(\.value)
        guard let id = vocabulary[unknown] else { throw BundleError("\(path): unk_token: no token") }
        (self.unknown, unknownId) = (unknown, id)
    }

    func tokenize(_ word: [UInt32], _ take: (_ id: Int, _ range: Range<Int>) -> Void) {
        guard let found = pieces(of: word) else { return take(unknownId, 0..<word.count) }
        for (id, range) in found { take(id, range) }
    }

    private func pieces(of word: [UInt32]) -> [(id: Int, range: Range<Int>)]? {
        guard word.count <= maxWordLength else { return nil }
        var found: [(id: Int, range: Range<Int>)] = []
        var start = 0
        while start < word.count {
            let prefix = start == 0 ? [] : continuation
            guard let end = (start + 1...word.count).last(where: { vocabulary[prefix + word[start..<$0]] != nil }),
                let id = vocabulary[prefix + word[start..<end]]
            else { return nil }
            found.append((id, start..<end))
            start = end
        }
        return found
    }
}
