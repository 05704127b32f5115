/// A text as code points, of which each knows its origin: the place in the text that was given of what it was.
struct Codes: Equatable, Sendable {
    private(set) var codes: [UInt32] = []
    private(set) var origins: [Int] = []

    init() {}

    /// A text that was given.
    init(_ codes: [UInt32]) {
        self.codes = codes
        origins = Array(codes.indices)
    }

    var count: Int { codes.count }

    mutating func append(_ code: UInt32, from origin: Int) {
        codes.append(code)
        origins.append(origin)
    }

    /// What each code point becomes, from where it was.
    func flatMap(_ change: (UInt32) -> [UInt32]) -> Codes {
        var result = Codes()
        for (code, origin) in zip(codes, origins) { for other in change(code) { result.append(other, from: origin) } }
        return result
    }

    /// What this text becomes by changes.
    func changed(by changes: [Change]) -> Codes {
        var result = Codes()
        var next = 0
        for each in changes {
            let place = each.change > 0 ? next - 1 : next
            if each.change <= 0 { next += 1 - each.change }
            result.append(each.code, from: origins[min(max(place, 0), count - 1)])
        }
        return result
    }

    /// The same behind `prefix`, which comes from where the first character does; nothing where there is nothing.
    func prefixed(_ prefix: [UInt32]) -> Codes {
        guard let first = origins.first else { return self }
        var result = Codes()
        result.codes = prefix + codes
        result.origins = prefix.map { _ in first } + origins
        return result
    }

    /// With `content` for each match, which comes from where the last character of the match does.
    func replaced(_ pattern: Pattern, _ content: [UInt32]) -> Codes {
        var result = Codes()
        for span in pattern.spans(codes) {
            if span.matches {
                for code in content { result.append(code, from: origins[span.range.upperBound - 1]) }
            } else {
                result.codes += codes[span.range]
                result.origins += origins[span.range]
            }
        }
        return result
    }

    func filter(_ keep: (UInt32) -> Bool) -> Codes { flatMap { keep($0) ? [$0] : [] } }

    subscript(range: Range<Int>) -> Codes {
        var result = Codes()
        result.codes = Array(codes[range])
        result.origins = Array(origins[range])
        return result
    }
}

/// A character of a changed text: 0 where it replaces one, -n where it replaces one and n behind it, 1 where it stands
/// beside the last one.
struct Change: Sendable {
    let code: UInt32
    var change: Int
}

/// Unicode as the tokenizers library knows it, from `UnicodeTables`: each system has another version of its own.
enum UnicodeData {
    static let removed = CodeRanges(UnicodeTables.removed)
    static let blank = CodeRanges(UnicodeTables.blank)
    static let ideographs = CodeRanges(UnicodeTables.ideographs)
    static let nonspacing = CodeRanges(UnicodeTables.nonspacing)
    static let whiteSpace = CodeRanges(UnicodeTables.whiteSpace)
    static let punctuation = CodeRanges(UnicodeTables.punctuation)
    static let combining = CodeRanges(UnicodeTables.combining, hasClasses: true)
    static let decomposed = CodeMapping(UnicodeTables.decomposed)
    static let lowered = CodeMapping(UnicodeTables.lowered)

    static let marks = CodeRanges(UnicodeTables.marks)
    static let excluded = CodeRanges(UnicodeTables.excluded)
    static let compatible = CodeMapping(UnicodeTables.compatible)
    /// Characters of words, where a step asks for these.
    static let word = CodeRanges(UnicodeTables.word)
    /// Characters that `Digits` takes for digits.
    static let numeric = CodeRanges(UnicodeTables.numeric)
    /// General categories, numbered as `categoryNames`.
    static let categories = CodeRanges(UnicodeTables.categories, hasClasses: true)
    static let categoryNames = ["Lu", "Ll", "Lt", "Lm", "Lo", "M", "N"]
    private static let extending = CodeRanges(UnicodeTables.extending)
    private static let prepended = CodeRanges(UnicodeTables.prepended)
    private static let controls = CodeRanges(UnicodeTables.controls)

    // Hangul syllables decompose by arithmetic (The Unicode Standard, section 3.12).
    private static let syllables: ClosedRange<UInt32> = 0xAC00...0xD7A3
    private static let (leadBase, vowelBase, tailBase): (UInt32, UInt32, UInt32) = (0x1100, 0x1161, 0x11A7)
    private static let (leads, vowels, tails): (UInt32, UInt32, UInt32) = (19, 21, 28)

    /// Pairs that compose: of each decomposition the part before its last character, composed, and that one.
    private static let compositions: [UInt64: UInt32] = {
        var whole: [[UInt32]: UInt32] = [:]
        for (code, parts) in decomposed.entries where parts.count > 1 && !excluded.contains(code) {
            whole[parts] = code
        }
        var found: [UInt64: UInt32] = [:]
        for (parts, code) in whole {
            let before = Array(parts.dropLast())
            guard let first = before.count == 1 ? before[0] : whole[before] else { continue }
            found[UInt64(first) << 32 | UInt64(parts[parts.count - 1])] = code
        }
        return found
    }()

    /// Canonical decomposition, or compatibility's (NFD, NFKD): characters in their parts, marks in canonical order.
    static func decompose(_ text: Codes, compatible: Bool = false) -> Codes {
        text.changed(by: decomposition(text, compatible))
    }

    /// The same, and then what composes is composed (NFC, NFKC).
    static func compose(_ text: Codes, compatible: Bool = false) -> Codes {
        var result: [Change] = []
        var starter: Int?
        var last: UInt32 = 0  // The class of what stands last behind the starter.
        for part in decomposition(text, compatible) {
            let rank = part.code < 0x300 ? 0 : combining.classOf(part.code)
            if let starter, last < rank || last == 0, let made = composed(result[starter].code, part.code) {
                result[starter] = Change(code: made, change: result[starter].change + part.change - 1)
                continue
            }
            if rank == 0 { starter = result.count }
            last = rank
            result.append(part)
        }
        return text.changed(by: result)
    }

    /// Whether a grapheme goes on from one character to the next, where it has at most five bytes of UTF-8.
    static func joins(_ code: UInt32, _ next: UInt32) -> Bool {
        if code == 0x0D, next == 0x0A { return true }
        if controls.contains(code) || controls.contains(next) { return false }
        return extending.contains(next) || prepended.contains(code)
    }

    private static func decomposition(_ text: Codes, _ isCompatible: Bool) -> [Change] {
        var parts: [Change] = []
        parts.reserveCapacity(text.count)
        for code in text.codes {
            // The first code point of each is told from what came in behind it: the library counts by these.
            var change = 0
            func add(_ part: UInt32) {
                parts.append(Change(code: part, change: change))
                change = 1
            }
            if code < 0x80 {
                add(code)
            } else if syllables.contains(code) {
                let index = code - syllables.lowerBound
                add(leadBase + index / (vowels * tails))
                add(vowelBase + index % (vowels * tails) / tails)
                if index % tails > 0 { add(tailBase + index % tails) }
            } else {
                ((isCompatible ? compatible[code] : nil) ?? decomposed[code] ?? [code]).forEach(add)
            }
        }
        return order(parts.map(\.code)).map { parts[$0] }
    }

    /// The character that two compose to.
    private static func composed(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if (leadBase..<leadBase + leads).contains(first), (vowelBase..<vowelBase + vowels).contains(second) {
            return syllables.lowerBound + ((first - leadBase) * vowels + second - vowelBase) * tails
        }
        if syllables.contains(first), (first - syllables.lowerBound) % tails == 0,
            (tailBase + 1..<tailBase + tails).contains(second)
        {
            return first + second - tailBase
        }
        return compositions[UInt64(first) << 32 | UInt64(second)]
    }

    /// The places of code points: marks between two characters of class 0 by rising class, those of one class in order.
    private static func order(_ codes: [UInt32]) -> [Int] {
        var order = Array(codes.indices)
        let classes = codes.map { $0 < 0x300 ? 0 : combining.classOf($0) }
        var start = 0
        while start < codes.count {
            guard classes[start] > 0 else {
                start += 1
                continue
            }
            let end = classes[start...].firstIndex(of: 0) ?? codes.count
            order.replaceSubrange(
                start..<end, with: (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) })
            start = end
        }
        return order
    }
}

/// A set of code points as sorted ranges, each perhaps with a class above 0.
struct CodeRanges: Sendable {
    private var firsts: [UInt32] = []
    private var ends: [UInt32] = []
    private var classes: [UInt32] = []

    /// Decode a table: for each range the gap behind the last one, its length and, with classes, its class, in base 36.
    init(_ table: String, hasClasses: Bool = false) {
        let numbers = table.split(whereSeparator: \.isWhitespace).map(decodeBase36)
        var end: UInt32 = 0
        for place in stride(from: 0, to: numbers.count, by: hasClasses ? 3 : 2) {
            firsts.append(end + numbers[place])
            end += numbers[place] + numbers[place + 1]
            ends.append(end)
            classes.append(hasClasses ? numbers[place + 2] : 1)
        }
    }

    /// Whether a code point is in a range.
    func contains(_ code: UInt32) -> Bool { classOf(code) > 0 }

    /// The class of a code point; 0 where it is in no range.
    func classOf(_ code: UInt32) -> UInt32 {
        // The number of ranges that begin at or before the code point.
        var (low, high) = (0, firsts.count)
        while low < high {
            let middle = (low + high) / 2
            if firsts[middle] <= code { low = middle + 1 } else { high = middle }
        }
        return low > 0 && code < ends[low - 1] ? classes[low - 1] : 0
    }
}

/// What code points become.
struct CodeMapping: Sendable {
    private var targets: [UInt32: [UInt32]] = [:]

    /// All of them.
    var entries: [UInt32: [UInt32]] { targets }

    /// Decode a table: entries `gap:target+target`, in base 36.
    init(_ table: String) {
        var code: UInt32 = 0
        for entry in table.split(whereSeparator: \.isWhitespace) {
            let parts = entry.split(separator: ":")
            code += decodeBase36(parts[0])
            targets[code] = parts[1].split(separator: "+").map(decodeBase36)
        }
    }

    /// nil where a code point stays as it is.
    subscript(code: UInt32) -> [UInt32]? { targets[code] }
}

/// A number of digits 0-9 and a-z.
private func decodeBase36(_ digits: Substring) -> UInt32 {
    digits.utf8.reduce(0) { $0 * 36 + UInt32($1 <= 0x39 ? $1 - 0x30 : $1 - 0x61 + 10) }
}
