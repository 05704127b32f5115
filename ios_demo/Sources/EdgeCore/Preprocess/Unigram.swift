/// The most likely tokens of a word where each has a probability of its own (Kudo 2018), by Viterbi's algorithm.
/// Unknown characters in a row are one token, or their bytes.
struct Unigram: TokenModel {
    /// What an unknown character costs beside the least likely token.
    private static let unknownPenalty = 10.0
    let vocabulary: [[UInt32]: Int]
    var unknown: [UInt32]? { nil }
    var marksContinuation: Bool { false }
    private let table: PrefixTable
    private let ids: [Int]
    /// Log probabilities by id.
    private let scores: [Double]
    private let unknownId: Int
    private let unknownScore: Double
    private let bytes: [Int?]

    init(_ value: JsonValue, _ path: String) throws {
        let record = try Record(value, at: path, keys: ["type", "unk_id", "vocab"], optional: ["byte_fallback"])
        var (vocabulary, scores): ([[UInt32]: Int], [Double]) = ([:], [])
        _ = try record.list("vocab", count: 1...Merges.count) { value, place in
            guard case .array(let entry) = value, entry.count == 2 else {
                throw BundleError("\(place): expected a token and its score, found \(value.kind)")
            }
            let token = try Record.text(entry[0], place, count: 0...1024)
            vocabulary[token.unicodeScalars.map(\.value)] = scores.count
            scores.append(try Record.number(entry[1], place, "a score") { _ in true })
        }
        self.vocabulary = vocabulary
        self.scores = scores
        let table = PrefixTable(vocabulary.keys)
        self.table = table
        ids = (0..<table.count).map { vocabulary[table[$0]] ?? 0 }
        unknownId = try record.integer("unk_id", 0...scores.count - 1)
        unknownScore = (scores.min() ?? 0) - Self.unknownPenalty
        bytes = try record.flag("byte_fallback", default: false) ? Self.byteTokens(vocabulary) : []
    }

    func tokenize(_ word: [UInt32], _ take: (_ id: Int, _ range: Range<Int>) -> Void) {
        let best = best(word)
        var end = 0
        while end < word.count {
            let start = end
            let id = best[start].id
            end = best[start].end
            guard id == unknownId else {
                take(id, start..<end)
                continue
            }
            while end < word.count, best[end].id == unknownId { end = best[end].end }
            let text = Array(word[start..<end])
            let parts = bytes.isEmpty ? [] : text.flatMap(utf8).map { bytes[Int($0)] }
            if let known = vocabulary[text] {
                take(known, start..<end)
            } else if !parts.isEmpty, !parts.contains(nil) {
                for part in parts.compactMap({ $0 }) { take(part, start..<end) }
            } else {
                take(unknownId, start..<end)
            }
        }
    }

    /// For each place where a token of the best path starts: where it ends, and its id.
    private func best(_ word: [UInt32]) -> [(end: Int, id: Int)] {
        var total = [Double](repeating: 0, count: word.count + 1)
        var found = [(start: Int, id: Int)](repeating: (-1, 0), count: word.count + 1)
        func offer(_ start: Int, _ end: Int, _ id: Int, _ score: Double) {
            let sum = score + total[start]
            guard found[end].start < 0 || sum > total[end] else { return }
            total[end] = sum
            found[end] = (start, id)
        }
        for start in word.indices {
            var isKnown = false
            table.forEachPrefix(of: word, from: start) { end, index in
                offer(start, end, ids[index], scores[ids[index]])
                if end == start + 1 { isKnown = true }
            }
            if !isKnown { offer(start, start + 1, unknownId, unknownScore) }
        }
        var path = [(end: Int, id: Int)](repeating: (0, 0), count: word.count)
        var end = word.count
        while end > 0 {
            path[found[end].start] = (end, found[end].id)
            end = found[end].start
        }
        return path
    }
}
