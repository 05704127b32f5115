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

/// A tokenizer from a file of the tokenizers library: added tokens are found, the rest is normalized and split into
/// words, and these into tokens.
struct TextTokenizer: Sendable {
    private static let maxFileBytes = 64 << 20
    private let normalizer: Normalizer?
    private let preTokenizer: PreTokenizer?
    /// The ids of added tokens.
    private let added: [[UInt32]: Int]
    private let raw: AddedTokens
    private let normalized: AddedTokens
    private let model: any TokenModel
    private let template: SpecialTokens
    /// Tokens by id, for what their texts tell.
    private let contents: [Int: [UInt32]]
    /// One more than the largest id.
    let vocabSize: Int

    /// Read a tokenizer file.
    ///
    /// - Throws: `BundleError`: no such file, or parts that this tokenizer does not have.
    init(_ data: Data, file: String) throws {
        let value = try StrictJson.parse(data, file: file, maxBytes: Self.maxFileBytes)
        // What a pipeline decides for itself, and what only the way back to text needs, may be missing.
        let record = try Record(
            value, at: file, keys: ["added_tokens", "model", "normalizer", "post_processor", "pre_tokenizer"],
            optional: ["decoder", "padding", "truncation", "version"])
        let normalizer = try record.maybe("normalizer") { try Normalizer($0.value($1).0, path: $0.value($1).path) }
        self.normalizer = normalizer
        preTokenizer = try record.maybe("pre_tokenizer") { try PreTokenizer($0.value($1).0, path: $0.value($1).path) }
        let (stated, path) = try record.value("model")
        let model = try readModel(stated, path)
        let frame = try record.value("post_processor")
        let template = try SpecialTokens(frame.0, path: frame.path)
        guard template.trim == nil || !(model is Unigram) else {
            throw BundleError("\(frame.path): trim_offsets has no reader here beside Unigram")
        }
        (self.model, self.template) = (model, template)
        let added = try record.list("added_tokens", count: 0...100_000) { try AddedToken($0, $1) }
        self.added = Dictionary(added.map { ($0.content, $0.id) }, uniquingKeysWith: { $1 })
        raw = AddedTokens(added.filter { !$0.isNormalized }.map { ($0.content, $0) })
        normalized = AddedTokens(
            added.filter(\.isNormalized).map { token in
                (normalizer?.normalize(Codes(token.content)).codes ?? token.content, token)
            })
        contents = Dictionary(
            model.vocabulary.map { ($0.value, $0.key) } + added.map { ($0.id, $0.content) }, uniquingKeysWith: { $1 })
        vocabSize = (contents.keys.max() ?? -1) + 1
    }

    /// The id of a token, by how the vocabulary has it.
    func id(of token: String) -> Int? {
        let codes = token.unicodeScalars.map(\.value)
        return added[codes] ?? model.vocabulary[codes]
    }

    /// Tokens as the vocabulary has them; empty: it has none of that id.
    func texts(of ids: [Int]) -> [String] {
        ids.map { id in
            var text = String.UnicodeScalarView()
            text.append(contentsOf: (contents[id] ?? []).compactMap(Unicode.Scalar.init))
            return String(text)
        }
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

    private func tokens(_ text: String) -> [Int] {
        var ids: [Int] = []
        forEachToken(text.unicodeScalars.map(\.value)) { id, _, _, _ in ids.append(id) }
        return ids
    }

    private func places(_ text: String) -> [Token] {
        let given = text.unicodeScalars.map(\.value)
        var found: [Token] = []
        forEachToken(given) { id, place, word, added in
            let content = contents[id] ?? []
            let range = template.trim?.trimmed(place, added ?? content, isFirst: found.isEmpty) ?? place
            let continues: Bool
            if let unknown = model.unknown, unknown == content {
                continues = false
            } else if model.marksContinuation {
                continues = content.count != range.count
            } else {
                let (start, end) = (range.lowerBound, min(range.lowerBound + 1, given.count))
                continues = start > 0 && !given[start - 1..<end].contains(0x20)
            }
            found.append(
                Token(id: id, start: range.lowerBound, end: range.upperBound, word: word, continues: continues))
        }
        return found
    }

    /// Takes each token's id, its place in the given text, its word's number and, of an added token, what it is.
    private func forEachToken(
        _ given: [UInt32], _ take: (_ id: Int, _ place: Range<Int>, _ word: Int, _ added: [UInt32]?) -> Void
    ) {
        var number = 0
        for piece in raw.split(Codes(given)) {
            let inner =
                piece.token == nil ? normalized.split(normalizer?.normalize(piece.text) ?? piece.text) : [piece]
            for part in inner {
                if let token = part.token {
                    take(token.id, place(part.text, 0..<part.text.count), number, part.text.codes)
                    number += 1
                    continue
                }
                for word in preTokenizer?.split(part.text) ?? [part.text] {
                    model.tokenize(word.codes) { take($0, place(word, $1), number, nil) }
                    number += 1
                }
            }
        }
    }

    private func place(_ word: Codes, _ range: Range<Int>) -> Range<Int> {
        word.origins[range.lowerBound]..<word.origins[range.upperBound - 1] + 1
    }
}
