/// Tokens that are found in a text before it is split into words, such as "[MASK]".
struct AddedTokens: Sendable {
    /// A part of a text: an added token, of which `length` code points its own content has, or text between.
    enum Part: Equatable {
        case token(id: Int, length: Int, Codes)
        case text(Codes)
    }

    private struct Token: Sendable {
        let content: [UInt32]
        /// Its content before it was normalized.
        let written: [UInt32]
        let id: Int
        let stripsLeft: Bool
        let stripsRight: Bool
    }

    /// By first code point, the longest first: the leftmost match counts, and of those the longest.
    private let raw: [UInt32: [Token]]
    private let normalized: [UInt32: [Token]]
    private let normalizer: BertNormalizer

    /// Read the `added_tokens` of a tokenizers file; also gives their ids.
    static func read(
        _ record: Record, normalizer: BertNormalizer
    ) throws -> (tokens: AddedTokens, ids: [Int]) {
        var raw: [Token] = []
        var normalized: [Token] = []
        var ids: [Int] = []
        _ = try record.list("added_tokens", count: 0...100_000) { value, path in
            let keys = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"]
            let token = try Record(value, at: path, keys: keys)
            let content = try token.text("content", count: 1...1024)
            guard try !token.flag("single_word") else {
                throw BundleError("\(path): tokens that match whole words only are not supported here")
            }
            let isNormalized = try token.flag("normalized")
            let codes = content.unicodeScalars.map(\.value)
            let entry = Token(
                content: isNormalized ? normalizer.normalize(codes) : codes,
                written: codes,
                id: try token.integer("id", 0...Int(Int32.max)),
                stripsLeft: try token.flag("lstrip"),
                stripsRight: try token.flag("rstrip")
            )
            ids.append(entry.id)
            if isNormalized { normalized.append(entry) } else { raw.append(entry) }
        }
        let tokens = AddedTokens(raw: table(raw), normalized: table(normalized), normalizer: normalizer)
        return (tokens, ids)
    }

    private init(raw: [UInt32: [Token]], normalized: [UInt32: [Token]], normalizer: BertNormalizer) {
        self.raw = raw
        self.normalized = normalized
        self.normalizer = normalizer
    }

    private static func table(_ tokens: [Token]) -> [UInt32: [Token]] {
        Dictionary(grouping: tokens.filter { !$0.content.isEmpty }, by: { $0.content[0] })
            .mapValues { $0.sorted { $0.content.count > $1.content.count } }
    }

    /// The id of the token that is written so.
    func id(of written: [UInt32]) -> Int? { all.first { $0.written == written }?.id }

    /// How a token is written.
    func content(of id: Int) -> [UInt32]? { all.first { $0.id == id }?.written }

    private var all: some Sequence<Token> { [raw, normalized].joined().flatMap(\.value) }

    /// The parts of a text in order; text between tokens is normalized.
    func split(_ text: Codes) -> [Part] {
        Self.split(text, raw).flatMap { part -> [Part] in
            guard case .text(let codes) = part else { return [part] }
            return Self.split(normalizer.normalize(codes), normalized)
        }
    }

    private static func split(_ whole: Codes, _ tokens: [UInt32: [Token]]) -> [Part] {
        guard !tokens.isEmpty else { return whole.count == 0 ? [] : [.text(whole)] }
        let text = whole.codes
        var parts: [Part] = []
        var (done, searched) = (0, 0)
        while searched < text.count {
            guard let token = tokens[text[searched]]?.first(where: { text[searched...].starts(with: $0.content) })
            else {
                searched += 1
                continue
            }
            var (start, end) = (searched, searched + token.content.count)
            searched = end
            if token.stripsLeft {
                while start > done, UnicodeData.whiteSpace.contains(text[start - 1]) { start -= 1 }
            }
            if token.stripsRight {
                while end < text.count, UnicodeData.whiteSpace.contains(text[end]) { end += 1 }
            }
            if done < start { parts.append(.text(whole[done..<start])) }
            parts.append(.token(id: token.id, length: token.written.count, whole[start..<end]))
            done = end
        }
        if done < text.count { parts.append(.text(whole[done..<text.count])) }
        return parts
    }
}
