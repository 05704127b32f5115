import Foundation

/// Token ids of a text, and which of the two texts of a pair each belongs to.
struct Encoding: Equatable {
    var ids: [Int]
    var typeIds: [Int]
    /// The text was cut.
    var truncated: Bool
}

/// A token of a text.
struct Token: Equatable, Sendable {
    let id: Int
    /// The first character that something of it comes from, in the text that was given.
    let start: Int
    /// The character behind the last one.
    let end: Int
    /// The number of its word in the text.
    let word: Int
    /// It continues the word of the token before it, as transformers sees it.
    let continues: Bool
}

/// A text or pair with its special tokens, whole.
struct WholeEncoding {
    var ids: [Int] = []
    var typeIds: [Int] = []
    /// nil: a special one.
    var tokens: [Token?] = []
    /// The number of each token's text, -1 of special ones.
    var texts: [Int] = []
}

/// BERT's tokenizer from a file of the tokenizers library: added tokens, normalizer, words, WordPiece, special tokens.
struct WordPieceTokenizer: Sendable {
    private static let maxFileBytes = 64 << 20
    /// Of a word, whose time is cubic in it; of a piece; and of what is written before pieces.
    private static let (maxWordLength, maxPieceLength, maxPrefixLength) = (200, 1024, 64)
    private let added: AddedTokens
    private let pieces: [[UInt32]: Int]
    private let continuation: [UInt32]
    private let unknown: Int
    private let maxWordLength: Int
    private let template: SpecialTokens
    /// One more than the largest id.
    let vocabSize: Int

    /// Read a tokenizer file.
    ///
    /// - Throws: `BundleError`: no such file, or parts that this tokenizer does not have.
    init(_ data: Data, file: String) throws {
        let value = try StrictJson.parse(data, file: file, maxBytes: Self.maxFileBytes)
        let record = try Record(
            value, at: file,
            keys: [
                "added_tokens", "decoder", "model", "normalizer", "padding", "post_processor", "pre_tokenizer",
                "truncation",
                "version",
            ])
        let normalizer = try BertNormalizer(try record.value("normalizer").0, path: "\(file).normalizer")
        let preTokenizer = try record.value("pre_tokenizer")
        _ = try Record(preTokenizer.0, at: preTokenizer.path, keys: ["type"])
            .text("type", "BertPreTokenizer") { $0 == "BertPreTokenizer" }
        let found = try AddedTokens.read(record, normalizer: normalizer)
        added = found.tokens
        let modelValue = try record.value("model")
        let model = try Record(
            modelValue.0, at: modelValue.path,
            keys: ["continuing_subword_prefix", "max_input_chars_per_word", "unk_token", "vocab"], optional: ["type"])
        if model.has("type") { _ = try model.text("type", "WordPiece") { $0 == "WordPiece" } }
        let vocab = try model.members("vocab", count: 1...10_000_000) { piece, value, path in
            guard piece.unicodeScalars.count <= Self.maxPieceLength else {
                throw BundleError("\(path): expected at most \(Self.maxPieceLength) characters")
            }
            return try Record.integer(value, path, 0...Int(Int32.max))
        }
        pieces = Dictionary(vocab.map { ($0.key.unicodeScalars.map(\.value), $0.value) }, uniquingKeysWith: { $1 })
        continuation = try model.text("continuing_subword_prefix", count: 0...Self.maxPrefixLength)
            .unicodeScalars.map(\.value)
        maxWordLength = try model.integer("max_input_chars_per_word", 1...Self.maxWordLength)
        let unknownText = try model.text("unk_token")
        guard let unknown = pieces[unknownText.unicodeScalars.map(\.value)] else {
            throw BundleError("\(file): the vocabulary lacks the unknown token \(shown(unknownText))")
        }
        self.unknown = unknown
        template = try SpecialTokens(try record.value("post_processor").0, path: "\(file).post_processor")
        vocabSize = (Array(pieces.values) + found.ids).reduce(-1, max) + 1
    }

    /// The id of a token, by how the vocabulary has it.
    func id(of token: String) -> Int? {
        let codes = token.unicodeScalars.map(\.value)
        return added.id(of: codes) ?? pieces[codes]
    }

    /// Tokens as the vocabulary has them; empty: it has none of that id. One search for all of them.
    func texts(of ids: [Int]) -> [String] {
        let wanted = Set(ids)
        var found: [Int: String] = [:]
        for (codes, id) in pieces where wanted.contains(id) { found[id] = Self.text(codes) }
        for id in wanted { found[id] = added.content(of: id).map(Self.text) ?? found[id] }
        return ids.map { found[$0] ?? "" }
    }

    private static func text(_ codes: [UInt32]) -> String {
        var text = String.UnicodeScalarView()
        text.append(contentsOf: codes.compactMap(Unicode.Scalar.init))
        return String(text)
    }

    /// How many special tokens surround one text, or a pair.
    func specialTokens(pair: Bool) -> Int { template.count(pair: pair) }

    /// The ids of a text, or of a pair, with special tokens; at most `longest`, which has room for these.
    func encode(_ text: String, _ pair: String?, longest: Int) -> Encoding {
        let room = longest - specialTokens(pair: pair != nil)
        let first = tokens(text)
        guard let pair else {
            return template.frame(Array(first.prefix(room)), nil, truncated: first.count > room)
        }
        let second = tokens(pair)
        let kept = Self.longestFirst(first.count, second.count, room: room)
        let truncated = kept.first < first.count || kept.second < second.count
        return template.frame(Array(first.prefix(kept.first)), Array(second.prefix(kept.second)), truncated: truncated)
    }

    /// How much of two texts of so many tokens stays: the longer one is cut, and both to halves where both are longer.
    private static func longestFirst(_ first: Int, _ second: Int, room: Int) -> (first: Int, second: Int) {
        guard first + second > room else { return (first, second) }
        let short = min(first, second)
        var kept = (short: short, long: short > room ? short : max(short, room - short))
        if kept.short + kept.long > room { kept = (room / 2, room / 2 + room % 2) }
        return first > second ? (kept.long, kept.short) : (kept.short, kept.long)
    }

    /// Encodes a text, or a pair of them, and cuts nothing.
    func encodeWhole(_ text: String, _ pair: String?) -> WholeEncoding {
        template.frame([places(text)] + [pair.map(places)].compactMap { $0 })
    }

    private func tokens(_ text: String) -> [Int] { places(text).map(\.id) }

    private func places(_ text: String) -> [Token] {
        let given = text.unicodeScalars.map(\.value)
        var found: [Token] = []
        var word = 0
        for part in added.split(Codes(given)) {
            switch part {
            case .token(let id, let length, let codes):
                found.append(token(id, codes, 0..<codes.count, length, word))
                word += 1
            case .text(let codes):
                for piece in BertNormalizer.words(codes.codes) {
                    for (id, range, length) in pieces(of: piece) {
                        found.append(token(id, codes, range, length, word))
                    }
                    word += 1
                }
            }
        }
        return continuation.isEmpty ? found.map { bySpaces($0, given) } : found
    }

    /// A token of a part of a text, whose own length is that of what the vocabulary has.
    private func token(_ id: Int, _ text: Codes, _ range: Range<Int>, _ length: Int, _ word: Int) -> Token {
        let (start, end) = (text.origins[range.lowerBound], text.origins[range.upperBound - 1] + 1)
        return Token(id: id, start: start, end: end, word: word, continues: id != unknown && length != end - start)
    }

    /// The same, continuing a word where no space stands before it and it begins with none.
    private func bySpaces(_ token: Token, _ given: [UInt32]) -> Token {
        let around = token.start == 0 ? [] : given[(token.start - 1)..<min(token.start + 1, given.count)]
        let continues = token.id != unknown && token.start > 0 && !around.contains(0x20)
        return Token(id: token.id, start: token.start, end: token.end, word: token.word, continues: continues)
    }

    /// The longest piece of the vocabulary that a word starts with, then of its rest; unknown where one is missing. With
    /// each its place in the text and the length of what the vocabulary has.
    private func pieces(of word: ArraySlice<UInt32>) -> [(id: Int, range: Range<Int>, length: Int)] {
        let whole = (id: unknown, range: word.startIndex..<word.endIndex, length: 0)
        guard word.count <= maxWordLength else { return [whole] }
        var found: [(id: Int, range: Range<Int>, length: Int)] = []
        var rest = word
        while !rest.isEmpty {
            let prefix = rest.startIndex == word.startIndex ? [] : continuation
            guard let end = (rest.startIndex + 1...rest.endIndex).last(where: { pieces[prefix + rest[..<$0]] != nil }),
                let id = pieces[prefix + rest[..<end]]
            else { return [whole] }
            found.append((id, rest.startIndex..<end, prefix.count + end - rest.startIndex))
            rest = rest[end...]
        }
        return found
    }
}

/// What a tokenizer puts around one text or two.
private struct SpecialTokens: Sendable {
    private enum Piece: Sendable {
        case special(ids: [Int], type: Int)
        case first(type: Int)
        case second(type: Int)
    }

    private static let maxPieces = 32
    private let single: [Piece]
    private let pair: [Piece]

    /// Read the `post_processor` of a tokenizers file: TemplateProcessing, BertProcessing, or null.
    init(_ value: JsonValue, path: String) throws {
        guard case .object(let object) = value else {
            (single, pair) = ([.first(type: 0)], [.first(type: 0), .second(type: 0)])
            return
        }
        if case .string("BertProcessing")? = object["type"] {
            let record = try Record(value, at: path, keys: ["type", "sep", "cls"])
            let (start, end) = (try Self.bertToken(record, "cls"), try Self.bertToken(record, "sep"))
            single = [.special(ids: [start], type: 0), .first(type: 0), .special(ids: [end], type: 0)]
            pair = single + [.second(type: 1), .special(ids: [end], type: 1)]
            return
        }
        let record = try Record(value, at: path, keys: ["type", "single", "pair", "special_tokens"])
        _ = try record.text("type", "TemplateProcessing or BertProcessing") { $0 == "TemplateProcessing" }
        let special = try record.members("special_tokens", count: 0...1000) { _, value, path in
            try Record(value, at: path, keys: ["id", "ids", "tokens"])
                .list("ids", count: 0...Self.maxPieces) { try Record.integer($0, $1, 0...Int(Int32.max)) }
        }
        let ids = Dictionary(special.map { (ExactString($0.key), $0.value) }, uniquingKeysWith: { $1 })
        single = try Self.pieces(record, "single", ids, texts: 1)
        pair = try Self.pieces(record, "pair", ids, texts: 2)
    }

    /// A template, in which each text stands once and in order.
    private static func pieces(
        _ record: Record, _ key: String, _ ids: [ExactString: [Int]], texts: Int
    ) throws -> [Piece] {
        let found = try record.list(key, count: 1...maxPieces) { try piece($0, $1, ids) }
        let order = found.compactMap { piece -> Int? in
            switch piece {
            case .special: nil
            case .first: 0
            case .second: 1
            }
        }
        guard order == Array(0..<texts) else {
            throw BundleError("\(key): expected \(texts == 1 ? "A" : "A and B"), once each")
        }
        return found
    }

    /// `["[SEP]", 102]`.
    private static func bertToken(_ record: Record, _ key: String) throws -> Int {
        let parts = try record.list(key, count: 2...2) { value, _ in value }
        return try Record.integer(parts[1], key, 0...Int(Int32.max))
    }

    private static func piece(_ value: JsonValue, _ path: String, _ ids: [ExactString: [Int]]) throws -> Piece {
        let outer = try Record(value, at: path, keys: [], optional: ["SpecialToken", "Sequence"])
        let isSpecial = outer.has("SpecialToken")
        let inner = try outer.value(isSpecial ? "SpecialToken" : "Sequence")
        let record = try Record(inner.0, at: inner.path, keys: ["id", "type_id"])
        let (id, type) = (try record.text("id"), try record.integer("type_id", 0...1))
        guard isSpecial else {
            guard id == "A" || id == "B" else { throw BundleError("\(path): expected A or B, found \(shown(id))") }
            return id == "A" ? .first(type: type) : .second(type: type)
        }
        guard let found = ids[ExactString(id)] else { throw BundleError("\(path): unknown special token \(shown(id))") }
        return .special(ids: found, type: type)
    }

    func count(pair isPair: Bool) -> Int {
        (isPair ? pair : single).reduce(0) { sum, piece in
            if case .special(let ids, _) = piece { sum + ids.count } else { sum }
        }
    }

    /// One text or two, whole.
    func frame(_ texts: [[Token]]) -> WholeEncoding {
        var encoding = WholeEncoding()
        for piece in texts.count == 1 ? single : pair {
            let (tokens, type, text): ([(Int, Token?)], Int, Int) =
                switch piece {
                case .special(let ids, let type): (ids.map { ($0, nil) }, type, -1)
                case .first(let type): (texts[0].map { ($0.id, $0) }, type, 0)
                case .second(let type): (texts[1].map { ($0.id, $0) }, type, 1)
                }
            encoding.ids += tokens.map(\.0)
            encoding.tokens += tokens.map(\.1)
            encoding.typeIds += tokens.map { _ in type }
            encoding.texts += tokens.map { _ in text }
        }
        return encoding
    }

    func frame(_ first: [Int], _ second: [Int]?, truncated: Bool) -> Encoding {
        var encoding = Encoding(ids: [], typeIds: [], truncated: truncated)
        for piece in second == nil ? single : pair {
            let (ids, type) =
                switch piece {
                case .special(let ids, let type): (ids, type)
                case .first(let type): (first, type)
                case .second(let type): (second ?? [], type)
                }
            encoding.ids += ids
            encoding.typeIds += [Int](repeating: type, count: ids.count)
        }
        return encoding
    }
}
