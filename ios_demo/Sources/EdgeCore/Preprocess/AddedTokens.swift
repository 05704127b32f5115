/// A token that is found in a text before it is split into words, such as "[MASK]".
struct AddedToken: Sendable {
    let id: Int
    let content: [UInt32]
    /// Found only where no character of a word stands beside it.
    let isWhole: Bool
    let stripsLeft: Bool
    let stripsRight: Bool
    /// Found in the normalized text, in its own normalized form.
    let isNormalized: Bool

    init(_ value: JsonValue, _ path: String) throws {
        let keys = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"]
        let record = try Record(value, at: path, keys: keys)
        _ = try record.flag("special")
        id = try record.integer("id", 0...Int(Int32.max))
        content = try record.text("content", count: 1...1024).unicodeScalars.map(\.value)
        isWhole = try record.flag("single_word")
        stripsLeft = try record.flag("lstrip")
        stripsRight = try record.flag("rstrip")
        isNormalized = try record.flag("normalized")
    }
}

/// Finds added tokens in texts: at each place from the left the longest one.
struct AddedTokens: Sendable {
    private let table: PrefixTable
    private let found: [AddedToken]

    init(_ tokens: [(content: [UInt32], token: AddedToken)]) {
        let byContent = Dictionary(tokens.map { ($0.content, $0.token) }, uniquingKeysWith: { $1 })
        let table = PrefixTable(byContent.keys)
        self.table = table
        found = (0..<table.count).compactMap { byContent[table[$0]] }
    }

    /// The parts of a text in order, each an added token or text between.
    func split(_ whole: Codes) -> [(text: Codes, token: AddedToken?)] {
        guard table.count > 0 else { return whole.count == 0 ? [] : [(whole, nil)] }
        let text = whole.codes
        var parts: [(text: Codes, token: AddedToken?)] = []
        var (done, searched) = (0, 0)
        while searched < text.count {
            var (start, end) = (searched, searched)
            var match: AddedToken?
            table.forEachPrefix(of: text, from: searched) { place, index in
                match = found[index]
                end = place
            }
            searched = max(end, searched + 1)
            guard let token = match else { continue }
            if token.isWhole, isWord(text, start - 1) || isWord(text, end) { continue }
            if token.stripsLeft {
                while start > done, UnicodeData.whiteSpace.contains(text[start - 1]) { start -= 1 }
                start = max(start, done)
            }
            if token.stripsRight {
                while end < text.count, UnicodeData.whiteSpace.contains(text[end]) { end += 1 }
            }
            if done < start { parts.append((whole[done..<start], nil)) }
            parts.append((whole[start..<end], token))
            done = end
        }
        if done < text.count { parts.append((whole[done..<text.count], nil)) }
        return parts
    }

    private func isWord(_ text: [UInt32], _ index: Int) -> Bool {
        text.indices.contains(index) && UnicodeData.word.contains(text[index])
    }
}
