/// Byte pair encoding: the characters of a word are tokens, and of all pairs that merge the one with the lowest rank
/// merges first (Sennrich et al. 2016), in n log n steps.
struct Bpe: TokenModel {
    let vocabulary: [[UInt32]: Int]
    let unknown: [UInt32]?
    var marksContinuation: Bool { !prefix.isEmpty }
    private let unknownId: Int?
    private let merges: Merges
    /// Of tokens that continue a word, and of those that end one.
    private let prefix: [UInt32]
    private let suffix: [UInt32]
    /// Unknown characters in a row are one token.
    private let fuses: Bool
    /// A word that the vocabulary has is one token.
    private let ignoresMerges: Bool
    /// The tokens of unknown characters' bytes of UTF-8, in their order; empty: there are none.
    private let bytes: [Int?]

    init(_ value: JsonValue, _ path: String) throws {
        let record = try Record(
            value, at: path, keys: ["merges", "vocab"],
            optional: [
                "byte_fallback", "continuing_subword_prefix", "dropout", "end_of_word_suffix", "fuse_unk",
                "ignore_merges", "type", "unk_token",
            ])
        let vocabulary = try Self.vocabulary(record, largest: Merges.count - 1)
        self.vocabulary = vocabulary
        _ = try record.maybe("dropout") { try $0.number($1, "null") { $0 == 0 } }
        let prefix = try record.affix("continuing_subword_prefix")
        let suffix = try record.affix("end_of_word_suffix")
        (self.prefix, self.suffix) = (prefix, suffix)
        let unknown = try record.maybe("unk_token") { try $0.text($1).unicodeScalars.map(\.value) }
        let unknownId = unknown.flatMap { vocabulary[$0] }
        guard unknown == nil || unknownId != nil else { throw BundleError("\(path): unk_token: no token") }
        (self.unknown, self.unknownId) = (unknown, unknownId)
        let hasBytes = try record.flag("byte_fallback", default: false)
        guard !hasBytes || (prefix + suffix).isEmpty else {
            throw BundleError("\(path): byte_fallback: expected no prefix and no suffix beside it")
        }
        bytes = hasBytes ? Self.byteTokens(vocabulary) : []
        merges = try Merges(record, path, vocabulary, prefix: prefix)
        fuses = try record.flag("fuse_unk", default: false)
        ignoresMerges = try record.flag("ignore_merges", default: false)
    }

    func tokenize(_ word: [UInt32], _ take: (_ id: Int, _ range: Range<Int>) -> Void) {
        if ignoresMerges, let known = vocabulary[word] { return take(known, 0..<word.count) }
        var symbols = symbols(word)
        symbols.merge(merges)
        // Lengths count bytes of UTF-8 from the word's start, whatever had no token there.
        var (place, passed, start) = (0, 0, 0)
        symbols.forEach { id, length in
            while passed + utf8Length(word[place]) <= start {
                passed += utf8Length(word[place])
                place += 1
            }
            let first = place
            start += length
            while passed + utf8Length(word[place]) < start {
                passed += utf8Length(word[place])
                place += 1
            }
            take(id, first..<place + 1)
        }
    }

    private func symbols(_ word: [UInt32]) -> Symbols {
        var symbols = Symbols()
        var unknowns = 0  // The bytes of an unknown token that is still to be added.
        for (index, code) in word.enumerated() {
            let id = vocabulary[(index > 0 ? prefix : []) + [code] + (index == word.count - 1 ? suffix : [])]
            if id == nil, !bytes.isEmpty {
                let parts = utf8(code).compactMap { bytes[Int($0)] }
                if parts.count == utf8Length(code) {
                    parts.forEach { symbols.append($0, length: 1) }
                    continue
                }
            }
            if let unknownId, unknowns > 0, id != nil || !fuses {
                symbols.append(unknownId, length: unknowns)
                unknowns = 0
            }
            if let id {
                symbols.append(id, length: utf8Length(code))
            } else if unknownId != nil {
                unknowns += utf8Length(code)
            }
        }
        if let unknownId, unknowns > 0 { symbols.append(unknownId, length: unknowns) }
        return symbols
    }
}

/// Pairs of tokens with the ranks of their merges, sorted: each pair and its rank are one number.
struct Merges: Sendable {
    /// Of an id and of a merge's rank: two ids and a rank fit into one number.
    private static let bits = 21
    static let count = 1 << bits
    private static let mask = count - 1
    private let pairs: [Int]
    private let made: [Int]

    init(_ record: Record, _ path: String, _ vocabulary: [[UInt32]: Int], prefix: [UInt32]) throws {
        func token(_ text: [UInt32], _ place: String) throws -> Int {
            guard let id = vocabulary[text] else { throw BundleError("\(place): not of tokens") }
            return id
        }
        var (pairs, made): ([Int], [Int]) = ([], [])
        _ = try record.list("merges", count: 0...Self.count - 1) { value, place in
            let parts: [[UInt32]]
            switch value {
            case .string(let line):
                if line.hasPrefix("#version") { return }
                parts = line.unicodeScalars.split(separator: " ", omittingEmptySubsequences: false)
                    .map { $0.map(\.value) }
            case .array(let items):
                parts = try items.map { try Record.text($0, place).unicodeScalars.map(\.value) }
            default: parts = []
            }
            guard parts.count == 2, parts[1].count >= prefix.count else {
                throw BundleError("\(place): expected two tokens, found \(value.kind)")
            }
            let pair = Self.pair(try token(parts[0], place), try token(parts[1], place))
            pairs.append(pair | made.count)
            made.append(try token(parts[0] + parts[1].dropFirst(prefix.count), place))
        }
        (self.pairs, self.made) = (pairs.sorted(), made)
    }

    private static func pair(_ first: Int, _ second: Int) -> Int { (first << bits | second) << bits }

    /// The rank of a pair; nil: it does not merge. Of a pair that occurs twice the last one counts.
    func rank(_ first: Int, _ second: Int) -> Int? {
        let pair = Self.pair(first, second)
        var (low, high) = (0, pairs.count)
        while low < high {
            let middle = (low + high) / 2
            if pairs[middle] <= pair | Self.mask { low = middle + 1 } else { high = middle }
        }
        return low > 0 && pairs[low - 1] & ~Self.mask == pair ? pairs[low - 1] & Self.mask : nil
    }

    /// The token that a merge makes.
    func token(_ rank: Int) -> Int { made[rank] }
}

/// The tokens of a word, which merge; each knows the one before it and the one behind it.
private struct Symbols {
    private var ids: [Int] = []
    private var lengths: [Int] = []

    mutating func append(_ id: Int, length: Int) {
        ids.append(id)
        lengths.append(length)
    }

    mutating func merge(_ merges: Merges) {
        let count = ids.count
        var before = (0..<count).map { $0 - 1 }
        var behind = (0..<count).map { $0 + 1 }
        var waiting = Heap()
        func offer(_ place: Int, _ ids: [Int], _ behind: [Int]) -> Int? {
            guard place >= 0, behind[place] < count else { return nil }
            return merges.rank(ids[place], ids[behind[place]]).map { $0 << 32 | place }
        }
        for place in 0..<count { if let pair = offer(place, ids, behind) { waiting.push(pair) } }
        while let top = waiting.pop() {
            let place = top & 0xFFFF_FFFF
            let next = behind[place]
            guard lengths[place] > 0, next < count else { continue }
            // A pair that has merged since may have left another one, which makes the same token or is for later.
            let token = merges.token(top >> 32)
            guard let rank = merges.rank(ids[place], ids[next]), merges.token(rank) == token else { continue }
            ids[place] = token
            lengths[place] += lengths[next]
            lengths[next] = 0
            behind[place] = behind[next]
            if behind[next] < count { before[behind[next]] = place }
            if let pair = offer(before[place], ids, behind) { waiting.push(pair) }
            if let pair = offer(place, ids, behind) { waiting.push(pair) }
        }
    }

    func forEach(_ take: (_ id: Int, _ length: Int) -> Void) {
        for (id, length) in zip(ids, lengths) where length > 0 { take(id, length) }
    }
}

/// A queue of numbers, the least first.
private struct Heap {
    private var items: [Int] = []

    mutating func push(_ item: Int) {
        items.append(item)
        var child = items.count - 1
        while child > 0, items[child] < items[(child - 1) / 2] {
            items.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func pop() -> Int? {
        guard let top = items.first, let last = items.popLast() else { return nil }
        if items.isEmpty { return top }
        items[0] = last
        var parent = 0
        while true {
            let least = [2 * parent + 1, 2 * parent + 2].filter { $0 < items.count }.min { items[$0] < items[$1] }
            guard let least, items[least] < items[parent] else { return top }
            items.swapAt(parent, least)
            parent = least
        }
    }
}
