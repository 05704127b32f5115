import Foundation

/// JSON as BUNDLE.md wants it: no duplicate keys, no NaN, bounded size and depth, integers apart from floats.
enum StrictJson {
    static let maxDepth = 32

    /// Parse UTF-8 JSON from an untrusted file.
    ///
    /// - Parameters:
    ///   - data: the file's bytes.
    ///   - file: its name, for messages.
    ///   - maxBytes: the largest accepted size.
    /// - Returns: the value, every number in range.
    /// - Throws: `BundleError`: not JSON, or JSON that other parsers would read differently.
    static func parse(_ data: Data, file: String, maxBytes: Int) throws -> JsonValue {
        guard data.count <= maxBytes else {
            throw BundleError("\(file): expected at most \(maxBytes) bytes, found \(data.count)")
        }
        let bytes = [UInt8](data)
        guard String(validating: bytes, as: UTF8.self) != nil else {
            throw BundleError("\(file): expected UTF-8 text")
        }
        return try bytes.withUnsafeBufferPointer { buffer in
            var parser = JsonParser(bytes: buffer, file: file)
            return try parser.document()
        }
    }
}

/// A parsed value.
enum JsonValue: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JsonValue])
    case object(JsonObject)

    /// The kind of value, for messages.
    var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let text): shown(text)
        case .array: "an array"
        case .object: "an object"
        }
    }

    /// Calls `visit` with every text and key inside, until it says true; whether it did.
    func containsText(where visit: (String) -> Bool) -> Bool {
        switch self {
        case .string(let text): visit(text)
        case .array(let items): items.contains { $0.containsText(where: visit) }
        case .object(let object):
            object.keys.contains(where: visit) || object.values.contains { $0.containsText(where: visit) }
        default: false
        }
    }
}

/// An object's members in the file's order, found by exact key.
struct JsonObject: Sendable {
    private(set) var keys: [String] = []
    private(set) var values: [JsonValue] = []
    private var places: [ExactString: Int] = [:]

    subscript(key: String) -> JsonValue? { places[ExactString(key)].map { values[$0] } }

    /// Add a member; false where the key is there already.
    mutating func append(_ key: String, _ value: JsonValue) -> Bool {
        guard places.updateValue(keys.count, forKey: ExactString(key)) == nil else { return false }
        keys.append(key)
        values.append(value)
        return true
    }
}

/// A text as it may be shown in a one-line message: quoted, in ASCII, at most 80 characters.
func shown(_ text: String, limit: Int = 80) -> String {
    let escaped = text.unicodeScalars.prefix(limit + 1).map { $0.escaped(asASCII: true) }.joined()
    return escaped.count <= limit ? "'\(escaped)'" : "'\(escaped.prefix(limit - 3))...'"
}

/// Reads one document. Positions are byte offsets.
private struct JsonParser {
    let bytes: UnsafeBufferPointer<UInt8>
    let file: String
    var position = 0

    mutating func document() throws -> JsonValue {
        skipSpace()
        let value = try value(depth: 0)
        skipSpace()
        guard position == bytes.count else { throw fault("expected the end") }
        return value
    }

    private func fault(_ what: String) -> BundleError { BundleError("\(file): not JSON: \(what) at byte \(position)") }

    private func peek() -> UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipSpace() {
        while let byte = peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { position += 1 }
    }

    private mutating func take(_ byte: Character) -> Bool {
        guard let found = peek(), found == byte.asciiValue else { return false }
        position += 1
        return true
    }

    private mutating func value(depth: Int) throws -> JsonValue {
        guard depth <= StrictJson.maxDepth else {
            throw BundleError("\(file): nested deeper than \(StrictJson.maxDepth) levels")
        }
        switch peek().map({ Character(Unicode.Scalar($0)) }) {
        case "{": return try object(depth: depth)
        case "[": return try array(depth: depth)
        case "\"": return .string(try string())
        case "t": return try word("true", .bool(true))
        case "f": return try word("false", .bool(false))
        case "n": return try word("null", .null)
        default: return try number()
        }
    }

    private mutating func word(_ text: String, _ value: JsonValue) throws -> JsonValue {
        guard bytes[position...].starts(with: text.utf8) else { throw fault("expected a value") }
        position += text.utf8.count
        return value
    }

    private mutating func object(depth: Int) throws -> JsonValue {
        position += 1
        var object = JsonObject()
        skipSpace()
        if take("}") { return .object(object) }
        repeat {
            skipSpace()
            guard peek() == UInt8(ascii: "\"") else { throw fault("expected a key") }
            let key = try string()
            skipSpace()
            guard take(":") else { throw fault("expected ':'") }
            skipSpace()
            guard object.append(key, try value(depth: depth + 1)) else {
                throw BundleError("\(file): the key \(shown(key)) occurs twice in one object")
            }
            skipSpace()
        } while take(",")
        guard take("}") else { throw fault("expected ',' or '}'") }
        return .object(object)
    }

    private mutating func array(depth: Int) throws -> JsonValue {
        position += 1
        var items: [JsonValue] = []
        skipSpace()
        if take("]") { return .array(items) }
        repeat {
            skipSpace()
            items.append(try value(depth: depth + 1))
            skipSpace()
        } while take(",")
        guard take("]") else { throw fault("expected ',' or ']'") }
        return .array(items)
    }

    private mutating func string() throws -> String {
        position += 1
        let start = position
        while let byte = peek(), byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\"), byte >= 0x20 { position += 1 }
        var text = String(decoding: bytes[start..<position], as: UTF8.self)
        while true {
            guard let byte = peek() else { throw fault("a text without an end") }
            if take("\"") { return text }
            guard byte >= 0x20 else { throw fault("a control character in a text") }
            if take("\\") {
                text.unicodeScalars.append(try escape())
            } else {
                let plain = position
                while let next = peek(), next != UInt8(ascii: "\""), next != UInt8(ascii: "\\"), next >= 0x20 {
                    position += 1
                }
                text += String(decoding: bytes[plain..<position], as: UTF8.self)
            }
        }
    }

    private mutating func escape() throws -> Unicode.Scalar {
        guard let byte = peek() else { throw fault("a text without an end") }
        position += 1
        switch Character(Unicode.Scalar(byte)) {
        case "\"": return "\""
        case "\\": return "\\"
        case "/": return "/"
        case "b": return "\u{8}"
        case "f": return "\u{c}"
        case "n": return "\n"
        case "r": return "\r"
        case "t": return "\t"
        case "u": return try unicodeEscape()
        default: throw fault("an unknown escape")
        }
    }

    private mutating func unicodeEscape() throws -> Unicode.Scalar {
        let first = try fourDigits()
        if let scalar = Unicode.Scalar(first) { return scalar }
        if first < 0xDC00, take("\\"), take("u") {
            let second = try fourDigits()
            if (0xDC00..<0xE000).contains(second),
                let scalar = Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00))
            {
                return scalar
            }
        }
        throw BundleError("\(file): a text holds half of a surrogate pair: expected valid Unicode")
    }

    private mutating func fourDigits() throws -> UInt32 {
        guard position + 4 <= bytes.count else { throw fault("expected four hexadecimal digits") }
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = Character(Unicode.Scalar(bytes[position])).hexDigitValue else {
                throw fault("expected four hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        return value
    }

    private mutating func digits() -> Int {
        let start = position
        while let byte = peek(), (0x30...0x39).contains(byte) { position += 1 }
        return position - start
    }

    private mutating func number() throws -> JsonValue {
        let start = position
        _ = take("-")
        let leadingZero = peek() == UInt8(ascii: "0")
        let count = digits()
        guard count > 0, !(leadingZero && count > 1) else { throw fault("expected a value") }
        var isInteger = true
        if take(".") {
            isInteger = false
            guard digits() > 0 else { throw fault("expected digits") }
        }
        if take("e") || take("E") {
            isInteger = false
            if !take("-") { _ = take("+") }
            guard digits() > 0 else { throw fault("expected digits") }
        }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        if isInteger {
            guard let value = Int(text) else { throw BundleError("\(file): the number \(shown(text)) is out of range") }
            return .integer(value)
        }
        guard let value = Double(text), value.isFinite else {
            throw BundleError("\(file): the number \(shown(text)) is out of range")
        }
        return .number(value)
    }
}
