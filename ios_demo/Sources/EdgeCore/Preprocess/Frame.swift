/// What a tokenizer puts around one text or two.
struct SpecialTokens: Sendable {
    private enum Piece: Sendable {
        case special(ids: [Int], type: Int)
        case first(type: Int)
        case second(type: Int)
    }

    private static let maxPieces = 32
    private let single: [Piece]
    private let pair: [Piece]

    /// Leaves white space out of tokens' places; nil: they stay as they are.
    let trim: Trim?

    /// Read the `post_processor` of a tokenizers file; null surrounds texts with nothing.
    init(_ value: JsonValue, path: String) throws {
        var (frame, trim): (SpecialTokens?, Trim?) = (nil, nil)
        if case .null = value {
            // Nothing surrounds a text.
        } else {
            var reader = StepReader("processors", once: ["ByteLevel", "TemplateProcessing"])
            for step in try reader.read(value, path, { (try SpecialTokens.step($0, $1, $2), 1) }) {
                let isFrame = !step.single.isEmpty
                guard !isFrame || frame == nil, step.trim == nil || trim == nil else {
                    throw BundleError("\(path): expected one step that surrounds texts")
                }
                guard isFrame || step.trim == nil || frame == nil else {
                    throw BundleError("\(path): expected ByteLevel before what surrounds texts")
                }
                if isFrame { frame = step }
                trim = step.trim ?? trim
            }
        }
        self.trim = trim
        single = frame?.single ?? [.first(type: 0)]
        pair = frame?.pair ?? [.first(type: 0), .second(type: 1)]
    }

    private init(single: [Piece], pair: [Piece], trim: Trim? = nil) {
        (self.single, self.pair, self.trim) = (single, pair, trim)
    }

    /// Without `single`: it surrounds nothing.
    private static func step(_ value: JsonValue, _ type: String, _ path: String) throws -> SpecialTokens {
        switch type {
        case "ByteLevel":
            let optional = ["add_prefix_space", "trim_offsets", "use_regex"]
            let record = try Record(value, at: path, keys: ["type"], optional: optional)
            _ = try record.flag("use_regex", default: true)
            return SpecialTokens(single: [], pair: [], trim: try Trim(record))
        case "BertProcessing", "RobertaProcessing":
            let isBert = type == "BertProcessing"
            let record = try Record(
                value, at: path, keys: ["type", "sep", "cls"],
                optional: isBert ? [] : ["add_prefix_space", "trim_offsets"])
            let cls = Piece.special(ids: [try bertToken(record, "cls")], type: 0)
            let sep = try bertToken(record, "sep")
            let end = Piece.special(ids: [sep], type: 0)
            let single = [cls, .first(type: 0), end]
            let second: [Piece] =
                isBert ? [.second(type: 1), .special(ids: [sep], type: 1)] : [end, .second(type: 0), end]
            return SpecialTokens(single: single, pair: single + second, trim: try isBert ? nil : Trim(record))
        case "TemplateProcessing":
            let record = try Record(value, at: path, keys: ["type", "single", "pair", "special_tokens"])
            let special = try record.members("special_tokens", count: 0...1000) { _, value, path in
                try Record(value, at: path, keys: ["id", "ids", "tokens"])
                    .list("ids", count: 0...Self.maxPieces) { try Record.integer($0, $1, 0...Int(Int32.max)) }
            }
            let ids = Dictionary(special.map { (ExactString($0.key), $0.value) }, uniquingKeysWith: { $1 })
            return SpecialTokens(
                single: try pieces(record, "single", ids, texts: 1), pair: try pieces(record, "pair", ids, texts: 2))
        default: throw BundleError("\(path): the post-processor \(shown(type)) has no reader here")
        }
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

/// White space at both ends of a token is not of its place.
struct Trim: Sendable {
    /// The one space that the pre-tokenizer put before the text does not count.
    private let keepsPrefix: Bool

    /// nil where the step says that places stay as they are.
    init?(_ record: Record) throws {
        keepsPrefix = try record.flag("add_prefix_space", default: true)
        guard try record.flag("trim_offsets", default: true) else { return nil }
    }

    func trimmed(_ place: Range<Int>, _ token: [UInt32], isFirst: Bool) -> Range<Int> {
        func isSpace(_ code: UInt32) -> Bool {
            code == ByteLevel.characters[0x20] || UnicodeData.whiteSpace.contains(code)
        }
        var leading = token.prefix(while: isSpace).count
        let trailing = token.reversed().prefix(while: isSpace).count
        if keepsPrefix, isFirst || place.lowerBound == 0, leading == 1 { leading = 0 }
        let start = min(place.lowerBound + leading, place.upperBound)
        let end = place.upperBound >= trailing ? max(place.upperBound - trailing, start) : place.upperBound
        return start..<end
    }
}
