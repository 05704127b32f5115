/// One object of a JSON file with exactly the keys that it must have, read value by value.
///
/// All `throws` are `BundleError`s that name the file and the path of the key.
struct Record {
    private let object: JsonObject
    private let path: String

    /// Take a value as an object with exactly these keys; `optional` ones may be absent, and others are ignored if asked.
    init(
        _ value: JsonValue, at path: String, keys: [String], optional: [String] = [], ignoringOthers: Bool = false
    ) throws {
        guard case .object(let object) = value else {
            throw BundleError("\(path): expected an object, found \(value.kind)")
        }
        let unknown = object.keys.first { !keys.contains($0) && !optional.contains($0) }
        if let unknown, !ignoringOthers {
            throw BundleError(
                "\(path): unknown key \(shown(unknown)): expected only \((keys + optional).joined(separator: ", "))")
        }
        if let missing = keys.first(where: { object[$0] == nil }) {
            throw BundleError("\(path): the key '\(missing)' is missing")
        }
        self.object = object
        self.path = path
    }

    /// Whether an optional key is there.
    func has(_ key: String) -> Bool { object[key] != nil }

    /// A value as it is, with its path.
    func value(_ key: String) throws -> (JsonValue, path: String) {
        guard let value = object[key] else { throw BundleError("\(path): the key '\(key)' is missing") }
        return (value, "\(path).\(key)")
    }

    /// A text of `count` code points.
    func text(_ key: String, count: ClosedRange<Int> = 0...Int.max) throws -> String {
        let (value, path) = try value(key)
        return try Record.text(value, path, count: count)
    }

    /// A text that `rule` takes; `expected` describes it.
    func text(_ key: String, _ expected: String, where rule: (String) -> Bool) throws -> String {
        let found = try text(key)
        guard rule(found) else { throw BundleError("\(path).\(key): expected \(expected), found \(shown(found))") }
        return found
    }

    /// A short name of letters, digits, dot, underscore and hyphen.
    func word(_ key: String, longest: Int = 64) throws -> String {
        try text(key, "a word of at most \(longest) letters, digits, . _ -") { isWord($0, longest: longest) }
    }

    /// One of a few texts.
    func choice<Choice: RawRepresentable & CaseIterable>(_ key: String) throws -> Choice
    where Choice.RawValue == String {
        let found = try text(key)
        guard let choice = Choice(rawValue: found) else {
            let names = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw BundleError("\(path).\(key): expected one of \(names), found \(shown(found))")
        }
        return choice
    }

    /// A whole number in a range.
    func integer(_ key: String, _ range: ClosedRange<Int>) throws -> Int {
        let (value, path) = try value(key)
        return try Record.integer(value, path, range)
    }

    /// A number, whole or not, that `rule` takes.
    func number(_ key: String, _ expected: String, where rule: (Double) -> Bool) throws -> Double {
        let (value, path) = try value(key)
        return try Record.number(value, path, expected, where: rule)
    }

    /// true or false.
    func flag(_ key: String) throws -> Bool {
        let (value, path) = try value(key)
        guard case .bool(let flag) = value else {
            throw BundleError("\(path): expected a boolean, found \(value.kind)")
        }
        return flag
    }

    /// What `read` makes of the key, nil where the value is null.
    func optional<Result>(_ key: String, _ read: (Record, String) throws -> Result) throws -> Result? {
        if case .null = try value(key).0 { return nil }
        return try read(self, key)
    }

    /// Each item of an array of `count` items.
    func list<Item>(
        _ key: String, count: ClosedRange<Int>, _ read: (JsonValue, String) throws -> Item
    ) throws -> [Item] {
        let (value, path) = try value(key)
        guard case .array(let items) = value else {
            throw BundleError("\(path): expected an array, found \(value.kind)")
        }
        guard count.contains(items.count) else {
            throw BundleError(
                "\(path): expected \(count.lowerBound) to \(count.upperBound) items, found \(items.count)")
        }
        return try items.enumerated().map { try read($1, "\(path)[\($0)]") }
    }

    /// Each member of an object of `count` members.
    func members<Member>(
        _ key: String, count: ClosedRange<Int>, _ read: (String, JsonValue, String) throws -> Member
    ) throws -> [(key: String, value: Member)] {
        let (value, path) = try value(key)
        guard case .object(let object) = value else {
            throw BundleError("\(path): expected an object, found \(value.kind)")
        }
        guard count.contains(object.keys.count) else {
            throw BundleError(
                "\(path): expected \(count.lowerBound) to \(count.upperBound) keys, found \(object.keys.count)")
        }
        return try zip(object.keys, object.values).map { ($0, try read($0, $1, "\(path).\(shown($0))")) }
    }

    static func text(_ value: JsonValue, _ path: String, count: ClosedRange<Int> = 0...Int.max) throws -> String {
        guard case .string(let text) = value else { throw BundleError("\(path): expected a text, found \(value.kind)") }
        guard count.contains(text.unicodeScalars.count) else {
            throw BundleError(
                "\(path): expected \(count.lowerBound) to \(count.upperBound) characters, found \(shown(text))")
        }
        return text
    }

    static func integer(_ value: JsonValue, _ path: String, _ range: ClosedRange<Int>) throws -> Int {
        guard case .integer(let number) = value else {
            throw BundleError("\(path): expected an integer, found \(value.kind)")
        }
        guard range.contains(number) else {
            throw BundleError("\(path): expected \(range.lowerBound) to \(range.upperBound), found \(number)")
        }
        return number
    }

    static func number(
        _ value: JsonValue, _ path: String, _ expected: String, where rule: (Double) -> Bool
    ) throws -> Double {
        let found: Double
        switch value {
        case .integer(let number): found = Double(number)
        case .number(let number): found = number
        default: throw BundleError("\(path): expected \(expected), found \(value.kind)")
        }
        guard rule(found) else { throw BundleError("\(path): expected \(expected), found \(found)") }
        return found
    }
}

/// Whether a text starts with an ASCII letter or digit and goes on with those, dots, underscores and hyphens.
func isWord(_ text: String, longest: Int = 64) -> Bool {
    guard let first = text.utf8.first, isAlphanumeric(first), text.utf8.count <= longest else { return false }
    return text.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x2E || $0 == 0x5F || $0 == 0x2D }
}

/// Whether a byte is an ASCII letter or digit.
func isAlphanumeric(_ byte: UInt8) -> Bool { isDigit(byte) || isLetter(byte) }

/// Whether a byte is an ASCII digit.
func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

/// Whether a byte is an ASCII letter.
func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5A).contains(byte & 0xDF) }
