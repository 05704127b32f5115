/// What a text pipeline takes.
public enum RawText: Equatable, Sendable {
    /// One text.
    case text(String)
    /// Two texts, such as a question and a passage.
    case pair(String, String)
    /// Token ids with the special tokens already among them.
    case tokenIds([Int])
}

/// Where the tokens of an encoded text, padding left out, stand in the texts that were given.
struct Places: Equatable, Sendable {
    /// nil of special ones.
    let tokens: [Token?]
    /// The number of each token's text, 0 or 1; -1: a special one.
    let texts: [Int]

    var count: Int { texts.count }
}

/// Turns raw text into the inputs of a program: token ids in the smallest bucket that fits.
struct TextEncoder: Sendable {
    static let maxCharacters = 1_000_000
    /// Of a text that is read in windows: all of it goes through the tokenizer.
    static let maxWindowedCharacters = 200_000
    /// Of one input: each is a run of the model.
    static let maxWindows = 4096

    /// 1 at the position whose token is predicted, of programs that predict one.
    static let maskPosition = "mask_position"

    private let spec: TextPreprocessing
    private let tokenizer: TextTokenizer?
    private let vocabSize: Int?
    private let buckets: [(length: Int, program: ProgramSpec)]
    private let longest: Int

    /// An encoder for the programs of a manifest, each a bucket whose length is dimension 1 of its inputs.
    ///
    /// - Throws: `BundleError`: the special tokens leave no room for text in the longest bucket.
    init(_ spec: TextPreprocessing, tokenizer: TextTokenizer?, programs: [ProgramSpec]) throws {
        self.spec = spec
        self.tokenizer = tokenizer
        vocabSize = spec.vocabSize ?? tokenizer?.vocabSize
        buckets = programs.map { ($0.inputs[0].shape[1], $0) }.sorted { $0.0 < $1.0 }
        longest = buckets[buckets.count - 1].length
        if let special = tokenizer?.specialTokens(pair: false), special >= longest {
            throw BundleError(
                "the tokenizer's \(special) special tokens leave no room for text in \(longest) positions")
        }
    }

    /// A program and its inputs, each (1, S) int32.
    ///
    /// - Throws: `InputError`: text that is too long, or token ids that the model does not have.
    func encode(_ raw: RawText) throws -> Prepared {
        switch raw {
        case .text(let text): return try encode(text, nil)
        case .pair(let first, let second): return try encode(first, second)
        case .tokenIds(let ids): return try encode(ids)
        }
    }

    private func encode(_ text: String, _ pair: String?) throws -> Prepared {
        guard let tokenizer else {
            throw InputError("this bundle has no tokenizer and takes token ids only: pass a list of integers")
        }
        for text in [text, pair].compactMap({ $0 }) where text.unicodeScalars.count > Self.maxCharacters {
            throw InputError(
                "the text has \(text.unicodeScalars.count) characters: expected at most \(Self.maxCharacters)")
        }
        guard pair == nil || tokenizer.specialTokens(pair: true) < longest else {
            throw InputError("a pair of texts does not fit into the \(longest) positions of this bundle")
        }
        let encoding = tokenizer.encode(text, pair, longest: longest)
        try checkIds(encoding.ids)
        return padded(encoding)
    }

    /// All of a text, or of a text and its pair, in as many windows of the longest bucket as it takes.
    ///
    /// Windows divide the last of the texts, the other stands whole in each. Neighbours share `shared` tokens, or half of
    /// what fits into a window where that is no more.
    ///
    /// - Throws: `InputError`: there is no tokenizer, or a text that no window takes.
    func windows(_ text: String, _ pair: String?, shared: Int) throws -> [Prepared] {
        guard let tokenizer else {
            throw InputError("this bundle has no tokenizer, and its answers are places in a text")
        }
        for given in [text, pair].compactMap({ $0 }) where given.unicodeScalars.count > Self.maxWindowedCharacters {
            throw InputError(
                "the text has \(given.unicodeScalars.count) characters: expected at most \(Self.maxWindowedCharacters)")
        }
        let encoding = tokenizer.encodeWhole(text, pair)
        try checkIds(encoding.ids)
        let divided = encoding.texts.indices.filter { encoding.texts[$0] == (pair == nil ? 0 : 1) }
        let around = encoding.ids.count - divided.count
        let room = longest - around
        guard room >= 1 else {
            throw InputError(
                "\(around) tokens stand in every window, special ones included, and fill the \(longest) positions of this bundle: shorten the first text"
            )
        }
        let overlap = shared < room ? shared : room / 2
        let starts =
            divided.count <= room
            ? [0] : Array(stride(from: 0, to: divided.count - overlap, by: room - overlap))
        guard starts.count <= Self.maxWindows else {
            throw InputError("the text takes \(starts.count) windows: expected at most \(Self.maxWindows)")
        }
        let first = divided.first ?? encoding.ids.count
        return starts.map { start in
            let kept =
                Array(0..<first) + divided[start..<min(start + room, divided.count)]
                + Array((first + divided.count)..<encoding.ids.count)
            let places = Places(tokens: kept.map { encoding.tokens[$0] }, texts: kept.map { encoding.texts[$0] })
            let window = Encoding(
                ids: kept.map { encoding.ids[$0] }, typeIds: kept.map { encoding.typeIds[$0] }, truncated: false)
            return padded(window, places, source: pair ?? text)
        }
    }

    /// A text once for each mask in it, whose place `maskPosition` says. The text is cut like any other.
    ///
    /// - Throws: `InputError`: as `encode`, or there is no mask in what the model reads of the text.
    func atMasks(_ text: String, _ head: MaskedToken) throws -> [Prepared] {
        let encoded = try encode(text, nil)
        let ids = encoded.inputs["input_ids"]?.doubles ?? []
        let found = ids.indices.filter { Int(ids[$0]) == head.maskTokenId }
        guard !found.isEmpty else {
            let place = encoded.truncated ? "the first \(longest) tokens of the text, which is cut there" : "it"
            throw InputError("expected a text with \(head.maskToken), found none in \(place)")
        }
        return found.map { place in
            var inputs = encoded.inputs
            let mark = ids.indices.map { Int32($0 == place ? 1 : 0) }
            inputs[Self.maskPosition] = Tensor(mark, shape: [1, ids.count])
            return Prepared(program: encoded.program, inputs: inputs, truncated: encoded.truncated)
        }
    }

    /// The id of a token of the vocabulary, or of the only one of a word.
    ///
    /// - Throws: `InputError`: it is not one token.
    func token(of word: String) throws -> Int {
        let ids = tokenizer?.encodeWhole(word, nil).tokens.compactMap { $0?.id } ?? []
        guard let id = tokenizer?.id(of: word) ?? (ids.count == 1 ? ids[0] : nil), id < vocabSize ?? 0 else {
            throw InputError("expected words that are one token each, found \(shown(word))")
        }
        return id
    }

    /// Tokens by themselves as the tokenizer writes them.
    func texts(of ids: [Int]) -> [String] { tokenizer?.texts(of: ids) ?? ids.map { _ in "" } }

    private func encode(_ ids: [Int]) throws -> Prepared {
        guard !ids.isEmpty else { throw InputError("expected at least one token id, found none") }
        try checkIds(ids)
        let kept = Array(ids.prefix(longest))
        let types = [Int](repeating: 0, count: kept.count)
        return padded(Encoding(ids: kept, typeIds: types, truncated: ids.count > longest))
    }

    private func checkIds(_ ids: [Int]) throws {
        let limit = vocabSize ?? Int(Int32.max) + 1
        if let wrong = ids.first(where: { !(0..<limit).contains($0) }) {
            throw InputError("token id \(wrong) is out of range: this model's are 0 to \(limit - 1)")
        }
    }

    private func padded(_ encoding: Encoding, _ places: Places? = nil, source: String? = nil) -> Prepared {
        let bucket = buckets.first { $0.length >= encoding.ids.count } ?? buckets[buckets.count - 1]
        var inputs: [String: Tensor] = [:]
        for spec in bucket.program.inputs {
            let (values, padding) =
                switch spec.name {
                case "input_ids": (encoding.ids, self.spec.padTokenId)
                case "attention_mask": ([Int](repeating: 1, count: encoding.ids.count), 0)
                case Self.maskPosition: ([], 0)
                default: (encoding.typeIds, 0)
                }
            let row = values + [Int](repeating: padding, count: bucket.length - values.count)
            inputs[spec.name] = Tensor(row.map(Int32.init), shape: [1, bucket.length])
        }
        return Prepared(
            program: bucket.program.name, inputs: inputs, truncated: encoding.truncated, places: places, source: source)
    }
}
