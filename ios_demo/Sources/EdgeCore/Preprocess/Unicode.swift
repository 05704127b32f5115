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
    static func decompose(_ codes: [UInt32]) -> [UInt32] {
        var parts: [UInt32] = []
        parts.reserveCapacity(codes.count)
        for code in codes {
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
        }
        return ordered(parts)
    }

    /// Marks between two characters of class 0, by rising class; those of one class keep their order.
    private static func ordered(_ codes: [UInt32]) -> [UInt32] {
        var codes = codes
        let classes = codes.map { $0 < 0x300 ? 0 : combining.classOf($0) }
        var start = 0
        while start < codes.count {
            guard classes[start] > 0 else {
                start += 1
                continue
            }
            let end = classes[start...].firstIndex(of: 0) ?? codes.count
            let order = (start..<end).sorted { (classes[$0], $0) < (classes[$1], $1) }
            codes.replaceSubrange(start..<end, with: order.map { codes[$0] })
            start = end
        }
        return codes
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
