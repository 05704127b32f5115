import Foundation

/// What a field of a flatbuffer's table may be.
indirect enum FlatField: Sendable {
    /// A number of so many bytes.
    case number(Int)
    /// An array of numbers of so many bytes each.
    case numbers(Int)
    /// Text with a zero behind it.
    case text
    /// A table.
    case table(@Sendable () -> FlatShape)
    /// An array of tables.
    case tables(@Sendable () -> FlatShape)
    /// One of several tables, of which the number in the slot before says which; nil: it must be another.
    case union(@Sendable (Int) -> FlatShape?)
}

/// The fields of a kind of table, by slot; nil: nobody here follows such a field. Others are not known, and ignored.
struct FlatShape: Sendable {
    private let fields: [FlatField?]

    init(_ fields: FlatField?...) { self.fields = fields }

    init(_ fields: [FlatField?]) { self.fields = fields }

    subscript(slot: Int) -> FlatField? { slot < fields.count ? fields[slot] : nil }
}

/// What may be looked at in all flatbuffers of a file: tables, texts and numbers of arrays, each as often as something
/// refers to it.
final class Steps {
    private static let most = 2_000_000
    private var count = 0

    /// Counts what is looked at: things that refer to one another in circles, or a million times to one, end here.
    func spend(_ more: Int) throws {
        count += more
        guard count <= Self.most else {
            throw Broken("corrupted: expected at most \(Self.most) tables, texts and numbers")
        }
    }
}

/// A flatbuffer that is read without trusting it: runtimes on phones follow whatever offsets it has.
///
/// Every known field of a table has the type that its shape states, and lies inside the buffer, as does all below it.
final class FlatBuffer {
    private static let maxDepth = 32

    /// The size of the buffer.
    let size: Int
    private let data: Data
    private let steps: Steps

    /// A reader of a buffer, from whose first byte offsets count; `steps` are the file's.
    init(_ data: Data, _ steps: Steps = Steps()) {
        self.data = data
        self.steps = steps
        size = data.count
    }

    /// The table that the file starts with, after all of it was checked.
    ///
    /// - Parameters:
    ///   - identifier: the four letters that tell the format.
    ///   - shape: what the table may hold.
    /// - Returns: the table.
    /// - Throws: `Broken`: the file is another, or leaves itself.
    func root(_ identifier: String, _ shape: FlatShape) throws -> FlatTable {
        guard size >= 8, data.dropFirst(4).prefix(4).elementsEqual(identifier.utf8) else {
            throw corrupted("expected '\(identifier)' at its start")
        }
        let table = try FlatTable(self, try offset(0))
        try check(table, shape, depth: 0)
        return table
    }

    /// An unsigned number of 1, 2 or 4 bytes, or a signed one of 8.
    func number(_ place: Int, _ bytes: Int) throws -> Int {
        try inside(place, bytes)
        return data.withUnsafeBytes { raw in
            switch bytes {
            case 1: Int(raw[place])
            case 2: Int(UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: place, as: UInt16.self)))
            case 4: Int(UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: place, as: UInt32.self)))
            default: Int(Int64(littleEndian: raw.loadUnaligned(fromByteOffset: place, as: Int64.self)))
            }
        }
    }

    /// Where the offset at a place leads.
    func offset(_ place: Int) throws -> Int {
        let target = place + (try number(place, 4))
        guard target > place, target <= size - 4 else { throw corrupted("an offset leaves it") }
        return target
    }

    /// The number of items of the array at a place; all of them lie inside the file.
    func count(_ place: Int, itemBytes: Int) throws -> Int {
        let count = try number(place, 4)
        try inside(place + 4, count * itemBytes)
        return count
    }

    /// The text at a place.
    func text(_ place: Int) throws -> String {
        let count = try count(place, itemBytes: 1)
        try spend(count)
        return String(decoding: data.dropFirst(place + 4).prefix(count), as: UTF8.self)
    }

    /// Counts what is looked at.
    func spend(_ count: Int) throws { try steps.spend(count) }

    /// An error that says what is wrong with the file.
    func corrupted(_ how: String) -> Broken { Broken("corrupted: \(how)") }

    private func inside(_ place: Int, _ count: Int) throws {
        guard place >= 0, count >= 0, place <= size, count <= size - place else { throw corrupted("it is cut off") }
    }

    private func check(_ table: FlatTable, _ shape: FlatShape, depth: Int) throws {
        guard depth <= Self.maxDepth else { throw corrupted("nested deeper than \(Self.maxDepth) tables") }
        try spend(1)
        for slot in 0..<table.slots {
            guard let place = try table.place(slot) else { continue }
            if let field = shape[slot] { try check(field, of: table, slot, place, depth: depth) }
        }
    }

    private func check(_ field: FlatField, of table: FlatTable, _ slot: Int, _ place: Int, depth: Int) throws {
        switch field {
        case .number(let bytes): try table.inline(place, bytes)
        case .numbers(let bytes): _ = try count(try table.target(place), itemBytes: bytes)
        case .text:
            let target = try table.target(place)
            guard try number(target + 4 + (try count(target, itemBytes: 1)), 1) == 0 else {
                throw corrupted("a text has no end")
            }
        case .table(let shape): try check(try FlatTable(self, try table.target(place)), shape(), depth: depth + 1)
        case .tables(let shape):
            for child in try table.tables(slot) { try check(child, shape(), depth: depth + 1) }
        case .union(let shapeOf):
            let kind = try table.byte(slot - 1)
            guard let shape = shapeOf(kind) else {
                throw corrupted("a table has a part of the kind \(kind), which no bundle uses")
            }
            try check(try FlatTable(self, try table.target(place)), shape, depth: depth + 1)
        }
    }
}

/// A table at a place of a flatbuffer.
struct FlatTable {
    /// How many fields it may have.
    let slots: Int
    private let file: FlatBuffer
    private let begin: Int
    private let fieldsBegin: Int
    private let bytes: Int

    init(_ file: FlatBuffer, _ begin: Int) throws {
        (self.file, self.begin) = (file, begin)
        // The place of the list of fields is signed, and counted backwards.
        fieldsBegin = begin - Int(Int32(truncatingIfNeeded: try file.number(begin, 4)))
        guard fieldsBegin >= 0, fieldsBegin <= file.size - 4 else {
            throw file.corrupted("a table has no list of fields")
        }
        let listBytes = try file.number(fieldsBegin, 2)
        bytes = try file.number(fieldsBegin + 2, 2)
        guard listBytes >= 4, listBytes % 2 == 0, bytes >= 4 else {
            throw file.corrupted("a table has no list of fields")
        }
        guard listBytes <= file.size - fieldsBegin, bytes <= file.size - begin else {
            throw file.corrupted("a table leaves it")
        }
        slots = (listBytes - 4) / 2
    }

    /// Where a field lies; nil where it is not there.
    func place(_ slot: Int) throws -> Int? {
        guard slot < slots else { return nil }
        let offset = try file.number(fieldsBegin + 4 + 2 * slot, 2)
        return offset == 0 ? nil : begin + offset
    }

    /// Refuses a field that leaves its table.
    func inline(_ place: Int, _ count: Int) throws {
        guard place >= begin + 4, place + count <= begin + bytes else {
            throw file.corrupted("a field leaves its table")
        }
    }

    /// Where a field that is an offset leads.
    func target(_ place: Int) throws -> Int {
        try inline(place, 4)
        return try file.offset(place)
    }

    /// A number of 4 bytes, signed.
    func int(_ slot: Int) throws -> Int {
        guard let place = try place(slot) else { return 0 }
        return Int(Int32(truncatingIfNeeded: try file.number(place, 4)))
    }

    /// A number of 4 bytes, unsigned.
    func uint(_ slot: Int, default standard: Int = 0) throws -> Int {
        guard let place = try place(slot) else { return standard }
        return try file.number(place, 4)
    }

    /// A number of 2 bytes, unsigned.
    func short(_ slot: Int) throws -> Int {
        guard let place = try place(slot) else { return 0 }
        return try file.number(place, 2)
    }

    /// A number of 1 byte, unsigned.
    func byte(_ slot: Int) throws -> Int {
        guard let place = try place(slot) else { return 0 }
        return try file.number(place, 1)
    }

    /// A number of 8 bytes, signed; an unsigned one is negative where it is too large for any file.
    func long(_ slot: Int, default standard: Int = 0) throws -> Int {
        guard let place = try place(slot) else { return standard }
        return try file.number(place, 8)
    }

    /// A text; empty where it is not there.
    func text(_ slot: Int) throws -> String {
        guard let place = try place(slot) else { return "" }
        return try file.text(try target(place))
    }

    /// An array of numbers of 1 or 4 bytes, unsigned, or of 8, signed; empty where it is not there.
    func numbers(_ slot: Int, bytes: Int) throws -> [Int] {
        guard let place = try place(slot) else { return [] }
        let list = try target(place)
        let count = try file.count(list, itemBytes: bytes)
        try file.spend(count)
        return try (0..<count).map { try file.number(list + 4 + bytes * $0, bytes) }
    }

    /// An array of signed numbers of 4 bytes; empty where it is not there.
    func ints(_ slot: Int) throws -> [Int] {
        try numbers(slot, bytes: 4).map { Int(Int32(truncatingIfNeeded: $0)) }
    }

    /// How many items an array has; none where it is not there.
    func count(_ slot: Int, itemBytes: Int) throws -> Int {
        guard let place = try place(slot) else { return 0 }
        return try file.count(try target(place), itemBytes: itemBytes)
    }

    /// A table; nil where it is not there.
    func table(_ slot: Int) throws -> FlatTable? {
        guard let place = try place(slot) else { return nil }
        return try FlatTable(file, try target(place))
    }

    /// An array of tables; empty where it is not there.
    func tables(_ slot: Int) throws -> [FlatTable] {
        guard let place = try place(slot) else { return [] }
        let list = try target(place)
        let count = try file.count(list, itemBytes: 4)
        try file.spend(count)
        return try (0..<count).map { try FlatTable(file, try file.offset(list + 4 + 4 * $0)) }
    }
}
