import Foundation

/// A protobuf message of an untrusted file, read field by field.
final class Protobuf {
    private static let maxFields = 2_000_000

    private let data: Data
    private let file: String
    private var fields = 0

    /// - Parameters:
    ///   - data: the file.
    ///   - file: its name, for messages.
    init(_ data: Data, file: String) { (self.data, self.file) = (data, file) }

    /// The message that the file is.
    var message: Message { Message(self, 0..<data.count) }

    /// A message between two places of the file.
    struct Message {
        private let file: Protobuf
        private var rest: Range<Int>

        fileprivate init(_ file: Protobuf, _ range: Range<Int>) { (self.file, rest) = (file, range) }

        /// Every field in the file's order; fields that occur twice are given twice.
        func forEach(_ use: (Field) throws -> Void) throws {
            var message = self
            while !message.rest.isEmpty { try use(try message.field()) }
        }

        /// Integers one after the other.
        fileprivate func integers() throws -> [Int] {
            var message = self
            var found: [Int] = []
            while !message.rest.isEmpty {
                try file.count()
                found.append(try message.varint())
            }
            return found
        }

        private mutating func field() throws -> Field {
            try file.count()
            let tag = UInt(bitPattern: try varint())
            let id = tag >> 3
            guard (1...0x1FFF_FFFF).contains(id) else { throw file.spoiled("a field has no number") }
            let value: Field.Value
            switch tag & 7 {
            case 0: value = .integer(try varint())
            case 1: value = .fixed(try bytes(8, id))
            case 2: value = .bytes(try bytes(try varint(), id))
            case 5: value = .fixed(try bytes(4, id))
            default: throw file.spoiled("the field \(id) is a group, which no bundle uses")
            }
            return Field(id: Int(id), value: value, file: file)
        }

        private mutating func bytes(_ count: Int, _ id: UInt) throws -> Range<Int> {
            guard count >= 0, count <= rest.count else { throw file.spoiled("the field \(id) leaves its message") }
            let begin = rest.lowerBound
            rest = begin + count..<rest.upperBound
            return begin..<begin + count
        }

        private mutating func varint() throws -> Int {
            var value: UInt64 = 0
            for shift in stride(from: UInt64(0), through: 63, by: 7) {
                guard let place = rest.first else { throw file.spoiled("a number is cut off") }
                let byte = file.data[file.data.startIndex + place]
                rest = place + 1..<rest.upperBound
                value |= UInt64(byte & 0x7F) << shift
                if byte < 0x80 { return Int(truncatingIfNeeded: value) }
            }
            throw file.spoiled("a number has more than ten bytes")
        }
    }

    /// A field of a message.
    struct Field {
        fileprivate enum Value {
            case integer(Int)
            case fixed(Range<Int>)
            case bytes(Range<Int>)
        }

        let id: Int
        fileprivate let value: Value
        fileprivate let file: Protobuf

        /// An integer.
        func integer() throws -> Int {
            guard case .integer(let number) = value else { throw mixed() }
            return number
        }

        /// Integers: one, or many in one field.
        func integers() throws -> [Int] {
            if case .integer(let number) = value { return [number] }
            return try message().integers()
        }

        /// A message of its own.
        func message() throws -> Message { Message(file, try range()) }

        /// Where its bytes lie in the file.
        func range() throws -> Range<Int> {
            guard case .bytes(let range) = value else { throw mixed() }
            return range
        }

        /// A text.
        func text() throws -> String {
            let range = try range()
            let begin = file.data.startIndex + range.lowerBound
            guard let text = String(validating: file.data[begin..<begin + range.count], as: UTF8.self) else {
                throw file.spoiled("the field \(id) is no UTF-8 text")
            }
            return text
        }

        private func mixed() -> BundleError { file.spoiled("the field \(id) has another type") }
    }

    /// An error that says what is wrong with the file.
    func spoiled(_ how: String) -> BundleError { BundleError("\(file): the model is spoiled: \(how)") }

    private func count() throws {
        fields += 1
        guard fields <= Self.maxFields else { throw spoiled("expected at most \(Self.maxFields) fields") }
    }
}
