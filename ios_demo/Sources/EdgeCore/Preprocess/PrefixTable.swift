/// Texts in order, found as prefixes of a text in time that grows with their length and the logarithm of their number.
struct PrefixTable: Sendable {
    private let sorted: [[UInt32]]
    /// Where the texts of each first character are.
    private let firsts: [UInt32: Range<Int>]

    init(_ texts: some Sequence<[UInt32]>) {
        sorted = Set(texts.filter { !$0.isEmpty }).sorted { $0.lexicographicallyPrecedes($1) }
        var firsts: [UInt32: Range<Int>] = [:]
        for (index, text) in sorted.enumerated() {
            firsts[text[0]] = (firsts[text[0]]?.lowerBound ?? index)..<index + 1
        }
        self.firsts = firsts
    }

    var count: Int { sorted.count }

    subscript(index: Int) -> [UInt32] { sorted[index] }

    /// Takes each text with which another one goes on at `start`, the shortest first, and the place where it ends.
    func forEachPrefix(of text: [UInt32], from start: Int, _ take: (_ end: Int, _ index: Int) -> Void) {
        guard var range = firsts[text[start]] else { return }
        var depth = 1
        while true {
            if sorted[range.lowerBound].count == depth { take(start + depth, range.lowerBound) }
            guard start + depth < text.count else { return }
            let code = text[start + depth]
            let first = bound(range, depth, code)
            range = first..<bound(first..<range.upperBound, depth, code + 1)
            if range.isEmpty { return }
            depth += 1
        }
    }

    /// The first text whose code point at `depth` is not below `code`.
    private func bound(_ range: Range<Int>, _ depth: Int, _ code: UInt32) -> Int {
        var (low, high) = (range.lowerBound, range.upperBound)
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle].count > depth, sorted[middle][depth] >= code { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
