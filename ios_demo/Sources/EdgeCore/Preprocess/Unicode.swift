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

    func filter(_ keep: (UInt32) -> Bool) -> Codes { flatMap { keep($0) ? [$0] : [] } }

    subscript(range: Range<Int>) -> Codes {
        var result = Codes()
        result.codes = Array(codes[range])
        result.origins = Array(origins[range])
        return result
    }
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

    // Hangul syllables decompose by arithmetic (The Unicode Standard, section 3.12).
    private static let syllables: ClosedRange<UInt32> = 0xAC00...0xD7A3
    private static let (leadBase, vowelBase, tailBase): (UInt32, UInt32, UInt32) = (0x1100, 0x1161, 0x11A7)
    private static let (vowels, tails): (UInt32, UInt32) = (21, 28)

    /// Canonical decomposition (NFD): every character in its parts, marks in canonical order.
    static func decompose(_ text: Codes) -> Codes {
        var parts: [UInt32] = []
        // The first code point of each is told from what came in behind it: the library counts by these.
        var isFirst: [Bool] = []
        for code in text.codes {
            let before = parts.count
            if code < 0x80 {
                parts.append(code)
            } else if syllables.contains(code) {
                let index = code - syllables.lowerBound
                parts.append(leadBase + index / (vowels * tails))
                parts.append(vowelBase + index % (vowels * tails) / tails)
                if index % tails > 0 { parts.append(tailBase + index % tails) }
            } else {
                parts += decomposed[code] ?? [code]
            }
            isFirst += (before..<parts.count).map { $0 == before }
        }
        var result = Codes()
        var place = -1
        for index in order(parts) {
            if isFirst[index] { place += 1 }
            result.append(parts[index], from: text.origins[max(place, 0)])
        }
        return result
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
