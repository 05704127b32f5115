/// By the names of a program and of its input: the input's numbers must be below this.
public typealias TableRows = [String: [String: Int]]

/// What a reader found in one model file.
struct Contents {
    /// How often each operator occurs.
    var operators: [String: Int] = [:]
    /// Of the inputs that index a table, the rows of the smallest such table.
    var rows: TableRows = [:]
}

/// Follows the inputs of a graph, or other values in it, to the tables that they index.
///
/// `Key` is how the format names what flows through a graph. Numbers that are computed are not followed: there the engine
/// has to look, and a format whose engine does not has to refuse them.
struct IndexTrace<Key: Hashable> {
    private var sources: [Key: Key]
    private var found: [Key: Int] = [:]

    init(_ inputs: [Key]) {
        sources = Dictionary(inputs.map { ($0, $0) }, uniquingKeysWith: { $1 })
    }

    /// An operator passes numbers on as they are: in another shape or type, or some of them.
    mutating func move(_ value: Key, _ results: [Key]) {
        guard let source = sources[value] else { return }
        for result in results { sources[result] = source }
    }

    /// Numbers are computed, or written over.
    mutating func forget(_ isGone: (Key) -> Bool) {
        for key in sources.keys where isGone(key) { sources[key] = nil }
    }

    /// An operator takes rows of a table by numbers; where these come from, nil: they are computed.
    @discardableResult
    mutating func index(_ indices: Key, _ rows: Int) -> Key? {
        guard let source = sources[indices] else { return nil }
        found[source] = min(rows, found[source] ?? rows)
        return source
    }

    /// What was found, by the inputs' names.
    func rows(_ names: [(Key, String)]) -> [String: Int] {
        let pairs = names.compactMap { key, name in found[key].map { (name, $0) } }
        return Dictionary(pairs, uniquingKeysWith: { $1 })
    }
}
