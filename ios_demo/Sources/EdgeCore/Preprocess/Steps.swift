/// Reads a part of a tokenizer's file, a step or a sequence of them, within the bounds of BUNDLE.md.
struct StepReader {
    private static let (maxSteps, maxGrowth) = (32, 8.0)
    /// Of a sequence's steps.
    let key: String
    /// Types of which a second one would make a text longer again.
    let once: Set<String>
    private var seen: Set<String> = []
    private var count = 0
    private var growth = 1.0

    init(_ key: String, once: Set<String>) {
        (self.key, self.once) = (key, once)
    }

    mutating func read<Step>(
        _ value: JsonValue, _ path: String, _ step: (JsonValue, String, String) throws -> (Step, growth: Double)
    ) throws -> [Step] {
        guard case .object(let object) = value, case .string(let type)? = object["type"] else {
            throw BundleError("\(path): expected an object with a type")
        }
        count += 1
        guard count <= Self.maxSteps else { throw BundleError("\(path): more than \(Self.maxSteps) steps") }
        if type == "Sequence" {
            let record = try Record(value, at: path, keys: ["type", key])
            let parts = try record.list(key, count: 0...Self.maxSteps) { ($0, $1) }
            return try parts.flatMap { try read($0.0, $0.1, step) }
        }
        if !seen.insert(type).inserted, once.contains(type) { throw BundleError("\(path): \(type) occurs twice") }
        let made = try step(value, type, path)
        growth *= max(made.growth, 1)
        guard growth <= Self.maxGrowth else {
            throw BundleError("\(path): replacements make a text over \(Self.maxGrowth) times longer")
        }
        return [made.0]
    }
}

extension Record {
    /// What `read` makes of a key that may be missing, or null.
    func maybe<Result>(_ key: String, _ read: (Record, String) throws -> Result) throws -> Result? {
        try has(key) ? optional(key, read) : nil
    }

    /// A flag that may be missing, or null.
    func flag(_ key: String, default value: Bool) throws -> Bool { try maybe(key) { try $0.flag($1) } ?? value }

    /// A short text that may be missing, or null: an affix of pieces.
    func affix(_ key: String) throws -> [UInt32] {
        try maybe(key) { try $0.text($1, count: 0...64) }?.unicodeScalars.map(\.value) ?? []
    }
}
