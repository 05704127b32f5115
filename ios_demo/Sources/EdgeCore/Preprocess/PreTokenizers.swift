/// What splits a text into words: its steps, in their order.
struct PreTokenizer: Sendable {
    private enum Step: Sendable {
        case bert
        case words
        case set(CodeRanges, Behavior)
        case pattern(Pattern, Behavior, inverts: Bool)
        case bytes(Pattern?, addsSpace: Bool)
        case metaspace(UInt32, Pattern, Scheme, splits: Bool)
    }

    private enum Scheme: String, CaseIterable { case always, first, never }

    private let steps: [Step]

    /// Read the `pre_tokenizer` of a tokenizers file.
    init(_ value: JsonValue, path: String) throws {
        var reader = StepReader("pretokenizers", once: ["ByteLevel", "Metaspace"])
        steps = try reader.read(value, path) { (try Self.step($0, $1, $2), 1) }
    }

    private static func step(_ value: JsonValue, _ type: String, _ path: String) throws -> Step {
        func record(_ keys: String..., optional: [String] = []) throws -> Record {
            try Record(value, at: path, keys: ["type"] + keys, optional: optional)
        }
        switch type {
        case "BertPreTokenizer":
            _ = try record()
            return .bert
        case "Whitespace":
            _ = try record()
            return .words
        case "WhitespaceSplit":
            _ = try record()
            return .set(UnicodeData.whiteSpace, .removed)
        case "Punctuation":
            let behavior: Behavior? = try record(optional: ["behavior"]).maybe("behavior") { try $0.choice($1) }
            return .set(UnicodeData.punctuation, behavior ?? .isolated)
        case "Digits":
            let isSingle = try record("individual_digits").flag("individual_digits")
            return .set(UnicodeData.numeric, isSingle ? .isolated : .contiguous)
        case "Split":
            let record = try record("pattern", "behavior", "invert")
            let (stated, place) = try record.value("pattern")
            return .pattern(
                try Pattern(stated, place), try record.choice("behavior"), inverts: try record.flag("invert"))
        case "ByteLevel":
            let record = try record(optional: ["add_prefix_space", "trim_offsets", "use_regex"])
            _ = try record.flag("trim_offsets", default: true)
            let pattern = try record.flag("use_regex", default: true) ? Pattern.gpt2() : nil
            return .bytes(pattern, addsSpace: try record.flag("add_prefix_space", default: true))
        case "Metaspace":
            return try metaspace(
                try record("replacement", optional: ["add_prefix_space", "prepend_scheme", "split", "str_rep"]), path)
        default: throw BundleError("\(path): the pre-tokenizer \(shown(type)) has no reader here")
        }
    }

    private static func metaspace(_ record: Record, _ path: String) throws -> Step {
        let mark = try record.text("replacement", count: 1...1).unicodeScalars.map(\.value)[0]
        _ = try record.maybe("str_rep") { try $0.text($1) }
        let adds = try record.flag("add_prefix_space", default: true)
        let stated: Scheme? = try record.maybe("prepend_scheme") { try $0.choice($1) }
        guard adds || stated == nil || stated == .never else {
            throw BundleError("\(path): add_prefix_space: expected what prepend_scheme says")
        }
        let scheme = adds ? stated ?? .always : .never
        return .metaspace(mark, Pattern(literal: " "), scheme, splits: try record.flag("split", default: true))
    }

    func split(_ text: Codes) -> [Codes] {
        steps.reduce([text]) { words, step in
            words.flatMap { Self.apply(step, to: $0) }.filter { $0.count > 0 }
        }
    }

    private static func apply(_ step: Step, to text: Codes) -> [Codes] {
        switch step {
        case .bert: return BertNormalizer.words(text.codes).map { text[$0.startIndex..<$0.endIndex] }
        case .words: return words(text)
        case .set(let set, let behavior): return behavior.split(text, spans(text, set.contains))
        case .pattern(let pattern, let behavior, let inverts):
            let spans = pattern.spans(text.codes)
            if !inverts { return behavior.split(text, spans) }
            return behavior.split(text, spans.map { MatchSpan(range: $0.range, matches: !$0.matches) })
        case .bytes(let pattern, let addsSpace):
            let prefixed = addsSpace && text.codes.first != 0x20 ? text.prefixed([0x20]) : text
            let words = pattern.map { Behavior.isolated.split(prefixed, $0.spans(prefixed.codes)) } ?? [prefixed]
            return words.map { $0.flatMap { code in utf8(code).map { ByteLevel.characters[Int($0)] } } }
        case .metaspace(let mark, let space, let scheme, let splits):
            var marked = text.replaced(space, [mark])
            let adds = scheme == .always || (scheme == .first && marked.origins.first == 0)
            if adds, marked.codes.first != mark { marked = marked.prefixed([mark]) }
            return splits ? Behavior.next.split(marked, spans(marked) { $0 == mark }) : [marked]
        }
    }

    /// Each character of the set for itself, and what is between them.
    private static func spans(_ text: Codes, _ matches: (UInt32) -> Bool) -> [MatchSpan] {
        var spans: [MatchSpan] = []
        var done = 0
        for (index, code) in text.codes.enumerated() where matches(code) {
            if done < index { spans.append(MatchSpan(range: done..<index, matches: false)) }
            spans.append(MatchSpan(range: index..<index + 1, matches: true))
            done = index + 1
        }
        if done < text.count { spans.append(MatchSpan(range: done..<text.count, matches: false)) }
        return spans
    }

    /// Runs of characters of words, and of others that are no white space.
    private static func words(_ text: Codes) -> [Codes] {
        let kinds = text.codes.map { UnicodeData.word.contains($0) ? 2 : UnicodeData.whiteSpace.contains($0) ? 0 : 1 }
        var found: [Codes] = []
        var start = 0
        while start < kinds.count {
            let end = kinds[start...].firstIndex { $0 != kinds[start] } ?? kinds.count
            if kinds[start] > 0 { found.append(text[start..<end]) }
            start = end
        }
        return found
    }
}

/// What becomes of that where a text is split.
private enum Behavior: String, CaseIterable, Sendable {
    case removed = "Removed"
    case isolated = "Isolated"
    case previous = "MergedWithPrevious"
    case next = "MergedWithNext"
    case contiguous = "Contiguous"

    func split(_ text: Codes, _ spans: [MatchSpan]) -> [Codes] {
        var words: [Codes] = []
        var start = 0
        for (index, span) in spans.enumerated() {
            let after = index + 1 < spans.count ? spans[index + 1].matches : nil
            let joins =
                switch self {
                case .removed, .isolated: false
                // A second one in a row stands alone.
                case .previous: after == true && !span.matches
                case .next: span.matches && after == false
                case .contiguous: after == span.matches
                }
            if joins { continue }
            if self != .removed || !span.matches { words.append(text[start..<span.range.upperBound]) }
            start = span.range.upperBound
        }
        return words
    }
}

/// The bytes of UTF-8 as printable characters (GPT-2, Radford et al. 2019).
enum ByteLevel {
    /// The character of each byte: itself where Latin-1 has a visible one, else the next from U+0100 on.
    static let characters: [UInt32] = {
        var next: UInt32 = 0xFF
        return (0..<256).map { (byte: UInt32) in
            if (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || byte >= 0xAE { return byte }
            next += 1
            return next
        }
    }()
}
