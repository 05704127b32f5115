/// A part of a text, which a pattern matches or not.
struct MatchSpan: Sendable {
    var range: Range<Int>
    var matches: Bool
}

/// Characters, as a pattern names them.
struct CharacterSet32: Sendable {
    enum Member: Sendable {
        case range(ClosedRange<UInt32>)
        case space(Bool)
        /// Of the general categories with these numbers; false: of all others.
        case category(Set<UInt32>, Bool)

        func contains(_ code: UInt32) -> Bool {
            switch self {
            case .range(let range): range.contains(code)
            case .space(let expected): UnicodeData.whiteSpace.contains(code) == expected
            case .category(let numbers, let expected):
                numbers.contains(UnicodeData.categories.classOf(code)) == expected
            }
        }
    }

    private let isNegated: Bool
    private let members: [Member]
    private let ascii: [Bool]

    init(_ members: [Member], isNegated: Bool = false) {
        (self.members, self.isNegated) = (members, isNegated)
        ascii = (0..<128).map { code in members.contains { $0.contains(code) } != isNegated }
    }

    func contains(_ code: UInt32) -> Bool {
        code < 128 ? ascii[Int(code)] : members.contains { $0.contains(code) } != isNegated
    }
}

/// A pattern of a tokenizer's file: alternatives, each a row of items, which a matcher that goes back passes once. It
/// is one of a public model, or has no groups and repeats without bound only what stands last (BUNDLE.md).
struct Pattern: Sendable {
    /// What a row is made of.
    indirect enum Item: Sendable {
        /// Characters of a set, from `least` to `most`; `kept`: as many as there are.
        case some(CharacterSet32, least: Int, most: Int, kept: Bool)
        /// No character of a set may stand here.
        case notAhead(CharacterSet32)
        /// The first of some rows that lets the rest match, too; the last one may be empty.
        case choice([[Item]])
    }

    private static let gpt2Words = #" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#
    private static let gpt4Rest = #" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    private static let suffixes = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    private static let upper = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#
    private static let lower = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#
    /// Of public models, which need groups and are linear; the first is GPT-2's.
    private static let known = [
        "'s|'t|'re|'ve|'m|'ll|'d|\(gpt2Words)",
        "'(?:[sdmt]|ll|ve|re)|\(gpt2Words)",
        #"\#(suffixes)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\#(gpt4Rest)"#,
        #"\#(suffixes)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|\#(gpt4Rest)"#,
        #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"#
            + #"|\s*[\r\n]|\s+(?!\S)|\s+"#,
        #"[^\r\n\p{L}\p{N}]?\#(upper)*\#(lower)+\#(suffixes)?|[^\r\n\p{L}\p{N}]?\#(upper)+\#(lower)*\#(suffixes)?"#
            + #"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"#,
    ]

    private let rows: [[Item]]
    /// How many characters it matches at least.
    let shortest: Int

    /// `{"String": …}` or `{"Regex": …}`.
    init(_ value: JsonValue, _ path: String) throws {
        let record = try Record(value, at: path, keys: [], optional: ["String", "Regex"])
        let key = record.has("Regex") ? "Regex" : "String"
        let stated = try record.text(key, count: 1...1024)
        try self.init(rows: key == "Regex" ? Self.parsed(stated) : Self.literal(stated))
        guard shortest > 0 else { throw BundleError("\(path): \(shown(stated)) matches the empty text") }
    }

    /// GPT-2's.
    static func gpt2() throws -> Pattern { Pattern(rows: try parsed(known[0])) }

    /// A text as it stands.
    init(literal text: String) { self.init(rows: Self.literal(text)) }

    private init(rows: [[Item]]) {
        self.rows = rows
        shortest = Self.shortest(rows)
    }

    private static func literal(_ text: String) -> [[Item]] {
        [
            text.unicodeScalars.map { scalar in
                .some(CharacterSet32([.range(scalar.value...scalar.value)]), least: 1, most: 1, kept: false)
            }
        ]
    }

    private static func parsed(_ pattern: String) throws -> [[Item]] {
        var parser = PatternParser(pattern, isKnown: known.contains(pattern))
        return try parser.read()
    }

    private static func shortest(_ rows: [[Item]]) -> Int {
        let lengths = rows.map { row in
            row.reduce(0) { sum, item in
                switch item {
                case .some(_, let least, _, _): sum + least
                case .notAhead: sum
                case .choice(let rows): sum + shortest(rows)
                }
            }
        }
        return lengths.min() ?? 0
    }

    /// The whole text in parts, from match to match.
    func spans(_ text: [UInt32]) -> [MatchSpan] {
        var spans: [MatchSpan] = []
        var (done, next) = (0, 0)
        while next < text.count {
            var found: Int?
            for row in rows {
                if let end = end(row[...], text, next), end > next {
                    found = end
                    break
                }
            }
            guard let end = found else {
                next += 1
                continue
            }
            if done < next { spans.append(MatchSpan(range: done..<next, matches: false)) }
            spans.append(MatchSpan(range: next..<end, matches: true))
            (done, next) = (end, end)
        }
        if done < text.count { spans.append(MatchSpan(range: done..<text.count, matches: false)) }
        return spans
    }

    /// Where the items of a row end; nil: they do not match at `start`.
    private func end(_ row: ArraySlice<Item>, _ text: [UInt32], _ start: Int) -> Int? {
        guard let item = row.first else { return start }
        let rest = row.dropFirst()
        switch item {
        case .notAhead(let set):
            return start < text.count && set.contains(text[start]) ? nil : end(rest, text, start)
        case .choice(let rows):
            for choice in rows {
                if let place = end(choice[...], text, start), let end = end(rest, text, place) { return end }
            }
            return nil
        case .some(let set, let least, let most, let kept):
            var count = 0
            while count < most, start + count < text.count, set.contains(text[start + count]) { count += 1 }
            while count >= least {
                let end = end(rest, text, start + count)
                if end != nil || kept { return end }
                count -= 1
            }
            return nil
        }
    }
}

private struct PatternParser {
    private static let (maxCharacters, maxVariants) = (512, 256)
    private let pattern: String
    private let isKnown: Bool
    private let codes: [UInt32]
    private var at = 0

    init(_ pattern: String, isKnown: Bool) {
        (self.pattern, self.isKnown) = (pattern, isKnown)
        codes = pattern.unicodeScalars.map(\.value)
    }

    mutating func read() throws -> [[Pattern.Item]] {
        guard codes.count <= Self.maxCharacters else { throw refusal }
        let rows = try alternatives(ignoringCase: false)
        guard at == codes.count else { throw refusal }
        return rows
    }

    private mutating func alternatives(ignoringCase: Bool) throws -> [[Pattern.Item]] {
        var rows = [try row(ignoringCase)]
        while next("|") { rows.append(try row(ignoringCase)) }
        return rows
    }

    private mutating func row(_ ignoringCase: Bool) throws -> [Pattern.Item] {
        var row: [Pattern.Item] = []
        var variants = 1
        var isOpen = false
        while at < codes.count, codes[at] != 0x7C, codes[at] != 0x29 {
            guard isKnown || !isOpen else { throw refusal }
            if isKnown, next("(") {
                row.append(try group())
                continue
            }
            let item = try quantified(try atom(ignoringCase))
            row.append(item)
            if case .some(_, let least, let most, _) = item {
                isOpen = most == Int.max
                if !isOpen { variants *= most - least + 1 }
            }
            guard isKnown || variants <= Self.maxVariants else { throw refusal }
        }
        return row
    }

    private mutating func group() throws -> Pattern.Item {
        if next("?!") {
            let set = try atom(false)
            guard next(")") else { throw refusal }
            return .notAhead(set)
        }
        let ignoringCase = next("?i:")
        guard ignoringCase || next("?:") else { throw refusal }
        let inner = try alternatives(ignoringCase: ignoringCase)
        guard next(")") else { throw refusal }
        return .choice(next("?") ? inner + [[]] : inner)
    }

    private mutating func quantified(_ set: CharacterSet32) throws -> Pattern.Item {
        let bounds: (Int, Int)
        if next("?") {
            bounds = (0, 1)
        } else if next("*") {
            bounds = (0, Int.max)
        } else if next("+") {
            bounds = (1, Int.max)
        } else if next("{") {
            bounds = try counts()
        } else {
            return .some(set, least: 1, most: 1, kept: false)
        }
        return .some(set, least: bounds.0, most: bounds.1, kept: isKnown && next("+"))
    }

    private mutating func counts() throws -> (Int, Int) {
        guard let low = number() else { throw refusal }
        let high = next(",") ? number() ?? Int.max : low
        guard next("}"), low <= high else { throw refusal }
        return (low, high)
    }

    private mutating func number() -> Int? {
        var (value, digits) = (0, 0)
        while at < codes.count, digits < 3, (0x30...0x39).contains(codes[at]) {
            value = value * 10 + Int(codes[at] - 0x30)
            digits += 1
            at += 1
        }
        return digits > 0 ? value : nil
    }

    private mutating func atom(_ ignoringCase: Bool) throws -> CharacterSet32 {
        if next("[") { return try bracket(ignoringCase) }
        if next(".") { return CharacterSet32([.range(0x0A...0x0A)], isNegated: true) }
        if at < codes.count, codes[at] < 128, "()]{}*+?^$".unicodeScalars.contains(where: { $0.value == codes[at] }) {
            throw refusal
        }
        return CharacterSet32(try member(ignoringCase))
    }

    private mutating func bracket(_ ignoringCase: Bool) throws -> CharacterSet32 {
        let isNegated = next("^")
        var members: [CharacterSet32.Member] = []
        while !next("]") {
            guard at < codes.count, codes[at] != 0x5B, codes[at] != 0x26 else { throw refusal }
            let isRange =
                codes[at] != 0x5C && at + 2 < codes.count && codes[at + 1] == 0x2D && codes[at + 2] != 0x5D
                && codes[at + 2] != 0x5C
            if isRange {
                guard codes[at] <= codes[at + 2] else { throw refusal }
                members.append(.range(codes[at]...codes[at + 2]))
                at += 3
            } else {
                members += try member(ignoringCase)
            }
        }
        guard !members.isEmpty else { throw refusal }
        return CharacterSet32(members, isNegated: isNegated)
    }

    private mutating func member(_ ignoringCase: Bool) throws -> [CharacterSet32.Member] {
        guard at < codes.count else { throw refusal }
        if next("\\") { return [try escaped()] }
        let code = codes[at]
        at += 1
        guard ignoringCase, (0x61...0x7A).contains(code) else { return [.range(code...code)] }
        // A long s is an s in another case.
        return [.range(code...code), .range(code - 32...code - 32)] + (code == 0x73 ? [.range(0x17F...0x17F)] : [])
    }

    private mutating func escaped() throws -> CharacterSet32.Member {
        guard at < codes.count else { throw refusal }
        let code = codes[at]
        at += 1
        switch code {
        case 0x73: return .space(true)
        case 0x53: return .space(false)
        case 0x72: return .range(0x0D...0x0D)
        case 0x6E: return .range(0x0A...0x0A)
        case 0x74: return .range(0x09...0x09)
        case 0x70, 0x50: return try category(code == 0x70)
        default:
            guard code >= 128 || !isAlphanumeric(UInt8(code)) else { throw refusal }
            return .range(code...code)
        }
    }

    private mutating func category(_ expected: Bool) throws -> CharacterSet32.Member {
        guard next("{") else { throw refusal }
        let isOther = next("^")
        var name = ""
        while at < codes.count, codes[at] != 0x7D {
            name.unicodeScalars.append(Unicode.Scalar(codes[at]) ?? "?")
            at += 1
        }
        let numbers = UnicodeData.categoryNames.enumerated()
            .filter { $0.element == name || (name == "L" && $0.element.hasPrefix("L")) }
            .map { UInt32($0.offset + 1) }
        guard !numbers.isEmpty, next("}") else { throw refusal }
        return .category(Set(numbers), expected != isOther)
    }

    private mutating func next(_ text: String) -> Bool {
        let wanted = text.unicodeScalars.map(\.value)
        guard codes[at...].starts(with: wanted) else { return false }
        at += wanted.count
        return true
    }

    private var refusal: BundleError {
        BundleError(
            "the pattern \(shown(pattern)) has no reader here: expected characters and classes without groups, the "
                + "last one alone repeated without bound, or the pattern of a public model")
    }
}
