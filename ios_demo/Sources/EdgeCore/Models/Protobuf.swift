import Foundation

/// Protobuf's wire format, read strictly and without copies: only what is asked for is decoded.
final class Protobuf {
    /// Of one file. A speech model has some 100,000.
    private static let maxFields = 1 << 20

    private let data: Data
    private var left = Protobuf.maxFields
    private var next = 0

    /// A reader of a whole file.
    init(_ data: Data) { self.data = data }

    /// The piece that the file is.
    var whole: Range<Int> { 0..<data.count }

    /// A field's value.
    enum Value {
        case integer(Int)
        case bytes(Range<Int>)
    }

    /// The fields of a message, those of one number in the file's order.
    struct Message {
        fileprivate let file: Protobuf
        fileprivate let values: [Int: [Value]]
        fileprivate let what: String

        /// The numbers of the fields that are there.
        var numbers: [Int] { Array(values.keys) }

        /// Whether a field is there.
        func has(_ number: Int) -> Bool { values[number] != nil }

        /// An integer; 0 where it is not there.
        func int(_ number: Int) throws -> Int {
            switch try one(number) {
            case nil: return 0
            case .integer(let value)?: return value
            case .bytes?: throw mixed(number)
            }
        }

        /// A part of its own; empty where it is not there.
        func part(_ number: Int) throws -> Range<Int> {
            switch try one(number) {
            case nil: return 0..<0
            case .bytes(let range)?: return range
            case .integer?: throw mixed(number)
            }
        }

        /// All parts of one number.
        func parts(_ number: Int) throws -> [Range<Int>] {
            try (values[number] ?? []).map { value in
                guard case .bytes(let range) = value else { throw mixed(number) }
                return range
            }
        }

        /// A text; empty where it is not there.
        func text(_ number: Int) throws -> String { try file.text(try part(number), what) }

        /// All texts of one number.
        func texts(_ number: Int) throws -> [String] { try parts(number).map { try file.text($0, what) } }

        private func one(_ number: Int) throws -> Value? {
            let found = values[number] ?? []
            guard found.count <= 1 else { throw Broken("\(what) has its field \(number) \(found.count) times") }
            return found.first
        }

        private func mixed(_ number: Int) -> Broken { Broken("\(what): its field \(number) has another wire type") }
    }

    /// The known fields of a message; others are skipped.
    ///
    /// - Parameters:
    ///   - range: where it lies in the file.
    ///   - known: the numbers of the fields that are asked for.
    ///   - what: what messages call it.
    /// - Returns: the fields.
    /// - Throws: `Broken`: it is no message.
    func message(_ range: Range<Int>, _ known: Set<Int>, _ what: String) throws -> Message {
        var values: [Int: [Value]] = [:]
        next = range.lowerBound
        while next < range.upperBound {
            try count(what)
            let key = UInt(bitPattern: try varint(range.upperBound, what))
            guard (1...0x1FFF_FFFF).contains(key >> 3) else { throw Broken("\(what) has a field without a number") }
            let value: Value
            switch key & 7 {
            case 0: value = .integer(try varint(range.upperBound, what))
            case 1: value = .bytes(try take(8, range.upperBound, what))
            case 2: value = .bytes(try take(try varint(range.upperBound, what), range.upperBound, what))
            case 5: value = .bytes(try take(4, range.upperBound, what))
            default: throw Broken("\(what) has the wire type \(key & 7)")
            }
            let number = Int(key >> 3)
            if known.contains(number) { values[number, default: []].append(value) }
        }
        return Message(file: self, values: values, what: what)
    }

    /// How many integers lie one after the other in a part: each ends with a byte below 128.
    func countIntegers(_ range: Range<Int>) -> Int {
        data.dropFirst(range.lowerBound).prefix(range.count).reduce(0) { $0 + ($1 < 0x80 ? 1 : 0) }
    }

    fileprivate func text(_ range: Range<Int>, _ what: String) throws -> String {
        let bytes = data[data.startIndex + range.lowerBound..<data.startIndex + range.upperBound]
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw Broken("\(what) has a text that is no UTF-8")
        }
        return text
    }

    private func take(_ count: Int, _ end: Int, _ what: String) throws -> Range<Int> {
        guard count >= 0, count <= end - next else { throw Broken("\(what) ends inside a field") }
        let begin = next
        next += count
        return begin..<next
    }

    private func varint(_ end: Int, _ what: String) throws -> Int {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), through: 63, by: 7) {
            guard next < end else { break }
            let byte = data[data.startIndex + next]
            next += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return Int(truncatingIfNeeded: value) }
        }
        throw Broken("\(what) ends inside an integer")
    }

    private func count(_ what: String) throws {
        left -= 1
        guard left >= 0 else { throw Broken("\(what): the file has more than \(Self.maxFields) fields") }
    }
}
