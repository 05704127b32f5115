import Foundation

/// What a question may ask for.
public struct SpanOptions: Equatable, Sendable {
    static let maxAnswers = 100
    static let maxAnswerTokens = 512
    /// How many answers.
    public let top: Int
    /// One of them may be that the text has no answer: an empty one.
    public let unanswerable: Bool
    /// The longest answer; nil: as the bundle says.
    public let maxAnswerTokens: Int?

    /// - Throws: `InputError`: a number is out of range.
    public init(top: Int = 1, unanswerable: Bool = false, maxAnswerTokens: Int? = nil) throws {
        guard (1...Self.maxAnswers).contains(top), (1...Self.maxAnswerTokens).contains(maxAnswerTokens ?? 1) else {
            throw InputError("expected 1 to \(Self.maxAnswers) answers of 1 to \(Self.maxAnswerTokens) tokens")
        }
        (self.top, self.unanswerable, self.maxAnswerTokens) = (top, unanswerable, maxAnswerTokens)
    }
}

/// Finds the answers to a question in a context: a pair of texts, the question first. Long contexts are read in windows.
public final class QuestionAnswerer: WindowPipeline {
    let parts: TextParts<SpanExtraction>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .questionAnswering) {
            if case .spans(let head) = $0 { head } else { nil }
        }
    }

    /// The best answer to the first text of a pair in the second.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> SpanResult { try measured(raw) }

    /// Answers, best first.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(question: String, context: String, _ options: SpanOptions? = nil) throws -> SpanResult {
        try measured(.pair(question, context)) { try answers($0, $1, options ?? SpanOptions()) }
    }

    func windows(_ raw: RawText) throws -> [Prepared] {
        guard case .pair(let question, let context) = raw else {
            throw InputError("expected a question and its context, a pair of texts")
        }
        guard !question.unicodeScalars.isEmpty else { throw InputError("expected a question, found an empty text") }
        guard !context.unicodeScalars.isEmpty else { throw InputError("expected a context, found an empty text") }
        return try encoder.windows(question, context, shared: head.stride)
    }

    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> SpanResult {
        try answers(outputs, windows, SpanOptions())
    }

    private func answers(
        _ outputs: [[String: Tensor]], _ windows: [Prepared], _ options: SpanOptions
    ) throws -> SpanResult {
        var found: [AnswerSpan] = []
        var known: [ExactString: Int] = [:]
        var nothing = Double.infinity
        for (output, window) in zip(outputs, windows) {
            guard let places = window.places else { continue }
            let source = Array((window.source ?? "").unicodeScalars)
            let tokens = try SpanProbabilities(TokenLogits.of(output, places, width: SpanProbabilities.width), places)
            nothing = min(nothing, tokens.nothing)
            // Twice as many as are asked for, and some to spare: several may be of the same words.
            let longest = options.maxAnswerTokens ?? head.maxAnswerTokens
            for span in tokens.best(2 * options.top + 10, longest: longest) {
                let (start, end) = places.wholeWords(span.first, span.last)
                let text = slice(source, start, end)
                let key = ExactString(text.lowercased())
                if let place = known[key] {
                    found[place].score += span.score
                } else {
                    known[key] = found.count
                    found.append(AnswerSpan(text: text, start: start, end: end, score: span.score))
                }
            }
        }
        if options.unanswerable { found.append(AnswerSpan(text: "", start: 0, end: 0, score: nothing)) }
        let order = found.indices.sorted { (found[$1].score, $0) < (found[$0].score, $1) }
        return SpanResult(answers: order.prefix(options.top).map { found[$0] })
    }
}

/// The scores of tokens that are no padding.
enum TokenLogits {
    static func of(_ outputs: [String: Tensor], _ places: Places, width: Int) throws -> [[Double]] {
        let row = try Heads.onlyRow(outputs)
        return (0..<places.count).map { token in row[token * width..<(token + 1) * width].map(Double.init) }
    }

    /// Each token's probabilities.
    static func probabilities(_ logits: [[Double]]) -> [[Double]] { logits.map(Heads.softmax) }
}

private func slice(_ source: [Unicode.Scalar], _ start: Int, _ end: Int) -> String {
    var text = String.UnicodeScalarView()
    text.append(contentsOf: source[start..<end])
    return String(text)
}

extension Places {
    /// The characters of a span of tokens with all of its first and last word that is in the window.
    fileprivate func wholeWords(_ first: Int, _ last: Int) -> (start: Int, end: Int) {
        var (first, last) = (first, last)
        while first > 0, isSameWord(first - 1, first) { first -= 1 }
        while last + 1 < count, isSameWord(last, last + 1) { last += 1 }
        return (tokens[first]?.start ?? 0, tokens[last]?.end ?? 0)
    }

    private func isSameWord(_ one: Int, _ other: Int) -> Bool {
        texts[one] == texts[other] && tokens[one]?.word == tokens[other]?.word
    }
}

/// How probably an answer starts at each token of the context and ends there, and that there is none.
struct SpanProbabilities {
    /// Columns of the logits: that an answer starts at a token, and that it ends there.
    static let width = 2
    let starts: [Double]
    let ends: [Double]
    let nothing: Double

    /// From logits, two for each token. The first token, where it is a special one, stands for no answer.
    init(_ logits: [[Double]], _ places: Places) {
        let allowed = (0..<places.count).filter { places.texts[$0] == 1 || ($0 == 0 && places.texts[$0] == -1) }
        var columns = (0..<Self.width).map { column -> [Double] in
            let scores = Heads.softmax(allowed.map { logits[$0][column] })
            var all = [Double](repeating: 0, count: places.count)
            for (index, row) in allowed.enumerated() { all[row] = scores[index] }
            return all
        }
        nothing = columns[0][0] * columns[1][0]
        for column in columns.indices { columns[column][0] = 0 }
        (starts, ends) = (columns[0], columns[1])
    }

    /// The best spans of more than no probability, best first, of equal ones the earliest.
    func best(_ count: Int, longest: Int) -> [(first: Int, last: Int, score: Double)] {
        var found: [(first: Int, last: Int, score: Double)] = []
        for first in starts.indices where starts[first] > 0 {
            for last in first..<min(first + longest, ends.count) where starts[first] * ends[last] > 0 {
                found.append((first, last, starts[first] * ends[last]))
            }
        }
        let order = found.indices.sorted { (found[$1].score, $0) < (found[$0].score, $1) }
        return order.prefix(count).map { found[$0] }
    }
}

/// Finds the entities of a text. Long texts are read in windows.
public final class EntityFinder: WindowPipeline {
    let parts: TextParts<TokenLabels>

    /// Open the tokenizer of a bundle.
    ///
    /// - Throws: `BundleError`: the tokenizer cannot be used. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        parts = try TextParts(bundle, engine, for: .tokenClassification) {
            if case .entities(let head) = $0 { head } else { nil }
        }
    }

    /// Entities in the order of the text, aggregated as the bundle says.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ raw: RawText) throws -> EntityResult { try measured(raw) }

    /// Entities in the order of the text, of tokens grouped as `aggregation` says, or nil as the bundle does.
    ///
    /// - Throws: `InputError`: the input cannot be used. `EngineError`: the model failed.
    public func run(_ text: String, _ aggregation: Aggregation? = nil) throws -> EntityResult {
        try measured(.text(text)) { try entities($0, $1, aggregation ?? head.aggregation) }
    }

    func windows(_ raw: RawText) throws -> [Prepared] {
        guard case .text(let text) = raw else {
            throw InputError("expected one text, found a pair of texts or token ids")
        }
        return try encoder.windows(text, nil, shared: head.stride)
    }

    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> EntityResult {
        try entities(outputs, windows, head.aggregation)
    }

    private func entities(
        _ outputs: [[String: Tensor]], _ windows: [Prepared], _ aggregation: Aggregation
    ) throws -> EntityResult {
        var found: [Labelled] = []
        var read = 0
        for (output, window) in zip(outputs, windows) {
            guard let places = window.places else { continue }
            let scores = TokenLogits.probabilities(try TokenLogits.of(output, places, width: head.labels.count))
            var tokens = zip(places.tokens, scores).compactMap { token, scores in
                token.map { Scored(start: $0.start, end: $0.end, scores: scores, continues: $0.continues) }
            }
            if aggregation == .none {  // a token that an earlier window has is that window's
                tokens = tokens.filter { $0.start >= read }
                read = tokens.last?.end ?? read
            }
            found += aggregate(tokens, aggregation).filter { entity in
                !head.outside.contains { ExactString($0) == ExactString(entity.label) }
            }
        }
        if aggregation != .none, windows.count > 1 { found = withoutOverlaps(found) }
        let source = Array((windows.first?.source ?? "").unicodeScalars)
        return EntityResult(
            entities: found.map {
                Entity(
                    text: slice(source, $0.start, $0.end), label: $0.label, start: $0.start, end: $0.end,
                    score: $0.score)
            })
    }

    /// Tokens to entities, those of no entity among them; BUNDLE.md has the rules.
    private func aggregate(_ tokens: [Scored], _ aggregation: Aggregation) -> [Labelled] {
        let isSimple = aggregation == .none || aggregation == .simple
        let labelled = (isSimple ? tokens : words(tokens, aggregation)).map { token in
            Labelled(
                start: token.start, end: token.end, label: head.labels[token.best], score: token.scores[token.best])
        }
        return aggregation == .none ? labelled : grouped(labelled)
    }
}

/// A token, or a whole word, with its probabilities.
private struct Scored {
    let start: Int
    let end: Int
    let scores: [Double]
    var continues = false

    /// The first of the largest.
    var best: Int { scores.firstIndex(of: scores.max() ?? 0) ?? 0 }
}

/// A token, word or entity with its label.
private struct Labelled {
    let start: Int
    let end: Int
    let label: String
    let score: Double
}

private func words(_ tokens: [Scored], _ aggregation: Aggregation) -> [Scored] {
    var words: [[Scored]] = []
    for token in tokens {
        if token.continues, !words.isEmpty { words[words.count - 1].append(token) } else { words.append([token]) }
    }
    return words.map { word in
        let scores: [Double]
        switch aggregation {
        case .average:
            scores = word[0].scores.indices.map { label in
                word.reduce(0) { $0 + $1.scores[label] } / Double(word.count)
            }
        case .max:
            let most = word.map { $0.scores[$0.best] }
            scores = word[most.firstIndex(of: most.max() ?? 0) ?? 0].scores
        default: scores = word[0].scores
        }
        return Scored(start: word[0].start, end: word[word.count - 1].end, scores: scores)
    }
}

/// Whether a label says that an entity begins, and the entity's own label.
private func tag(of label: String) -> (begins: Bool, ExactString) {
    let marked = label.hasPrefix("B-") || label.hasPrefix("I-")
    return (label.hasPrefix("B-"), ExactString(marked ? String(label.dropFirst(2)) : label))
}

private func grouped(_ labelled: [Labelled]) -> [Labelled] {
    var groups: [[Labelled]] = []
    for each in labelled {
        let (begins, own) = tag(of: each.label)
        if !begins, let last = groups.last?.last, tag(of: last.label).1 == own {
            groups[groups.count - 1].append(each)
        } else {
            groups.append([each])
        }
    }
    return groups.map { group in
        Labelled(
            start: group[0].start, end: group[group.count - 1].end,
            label: String(
                group[0].label.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).last ?? ""),
            score: group.reduce(0) { $0 + $1.score } / Double(group.count))
    }
}

/// Of entities of several windows that overlap the longest, of equally long ones the surest.
private func withoutOverlaps(_ found: [Labelled]) -> [Labelled] {
    var kept: [Labelled] = []
    for index in found.indices.sorted(by: { (found[$0].start, $0) < (found[$1].start, $1) }) {
        let each = found[index]
        guard let last = kept.last, (last.start..<max(last.start, last.end)).contains(each.start) else {
            kept.append(each)
            continue
        }
        if (each.end - each.start, each.score) > (last.end - last.start, last.score) { kept[kept.count - 1] = each }
    }
    return kept
}
