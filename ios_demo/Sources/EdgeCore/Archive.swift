import Foundation

/// The members of a bundle's stored zip, read without trusting what it says about itself (APPNOTE.TXT, section 4.3).
struct Archive {
    static let maxFiles = 10_000
    private static let maxDirectoryBytes = 16 << 20
    private static let endBytes = 22
    private static let localSignature = 0x0403_4B50
    private static let endSignature = 0x0605_4B50
    // What a writer MUST state of every member: version 2.0, made on Unix on 1980-01-01 with mode 0100644.
    private static let version = 20
    private static let madeOnUnix = 3 << 8 | version
    private static let date = 33
    private static let mode = 0x81A4 << 16

    /// The size of each member by name.
    let sizes: [String: Int]
    private let entries: [String: Entry]
    private let data: Data
    private let file: String

    /// Check a zip, which is mapped into memory, not read.
    ///
    /// - Throws: `BundleError`: truncated, compressed, encrypted, with links, folders, unsafe or duplicate names, or bytes that
    ///   its directory does not account for.
    init(_ url: URL) throws {
        file = url.lastPathComponent
        do {
            data = try Data(contentsOf: url, options: .alwaysMapped)
        } catch {
            throw BundleError("\(file): cannot be read: \(error.localizedDescription)")
        }
        let corrupted = BundleError("\(file): not a bundle's zip, or truncated")
        let end = data.count - Self.endBytes
        guard end >= 0, number(data, end, 4) == Self.endSignature, number(data, end + 20, 2) == 0 else {
            throw corrupted
        }
        let count = number(data, end + 10, 2)
        let directoryBytes = number(data, end + 12, 4)
        let directory = number(data, end + 16, 4)
        guard number(data, end + 4, 4) == 0, number(data, end + 8, 2) == count else {
            throw BundleError("\(file): expected a zip in one piece")
        }
        guard count <= Self.maxFiles + 2, directoryBytes <= Self.maxDirectoryBytes else {
            throw BundleError("\(file): expected at most \(Self.maxFiles) files, found \(count)")
        }
        guard directory + directoryBytes == end else { throw corrupted }
        var entries: [String: Entry] = [:]
        var position = directory
        for _ in 0..<count {
            let entry = try Entry(data, at: position, before: end, file: file)
            guard entries.updateValue(entry, forKey: entry.name) == nil else {
                throw BundleError("\(shown(entry.name)) occurs twice in the zip")
            }
            position += entry.length
        }
        guard position == end else { throw corrupted }
        try Names.checkDistinct(entries.keys)
        try Self.checkContiguous(entries.values.sorted { $0.local < $1.local }, before: directory, data, file)
        self.entries = entries
        sizes = entries.mapValues(\.size)
    }

    /// A member's bytes, without a copy.
    ///
    /// - Throws: `BundleError`: no such member, or its checksum is another.
    func read(_ name: String) throws -> Data {
        guard let entry = entries[name] else { throw BundleError("no \(name) in the zip: expected a bundle's zip") }
        let bytes = data[data.startIndex + entry.data..<data.startIndex + entry.data + entry.size]
        guard Crc32.of(bytes) == UInt32(entry.crc) else { throw BundleError("\(file): \(name) has another CRC") }
        return bytes
    }

    /// Compares every header with what BUNDLE.md asks of writers: sorted, one date, one permission.
    ///
    /// - Throws: `BundleError`: the zip has bytes that no signature covers.
    func checkCanonical() throws {
        var expected = Data()
        var position = 0
        for entry in entries.values.sorted(by: { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }) {
            guard entry.local == position, entry.facts.elementsEqual(Self.facts(entry)) else { throw notCanonical() }
            position = entry.data + entry.size
            expected += little(0x0201_4B50, 4) + little(Self.madeOnUnix, 2) + Self.facts(entry)
            expected += little(entry.name.utf8.count, 2) + little(0, 8) + little(Self.mode, 4)
            expected += little(entry.local, 4) + Data(entry.name.utf8)
        }
        let directoryBytes = expected.count
        expected += little(Self.endSignature, 4) + little(0, 4) + little(entries.count, 2) + little(entries.count, 2)
        expected += little(directoryBytes, 4) + little(position, 4) + little(0, 2)
        guard data.dropFirst(position).elementsEqual(expected) else { throw notCanonical() }
    }

    private func notCanonical() -> BundleError {
        BundleError("\(file): it holds other bytes than its signed files give: pack it again")
    }

    private static func facts(_ entry: Entry) -> Data {
        little(version, 2) + little(0, 6) + little(date, 2) + little(entry.crc, 4) + little(entry.size, 4)
            + little(entry.size, 4)
    }

    /// Members fill the file up to its directory, each behind a header that says what the directory does.
    private static func checkContiguous(
        _ entries: [Entry], before directory: Int, _ data: Data, _ file: String
    ) throws {
        var position = 0
        for entry in entries {
            let header =
                little(localSignature, 4) + entry.facts + little(entry.name.utf8.count, 2) + little(0, 2)
                + Data(entry.name.utf8)
            guard entry.local == position, data.dropFirst(position).prefix(header.count).elementsEqual(header),
                entry.data + entry.size <= directory
            else {
                throw hidden(file, "bytes before \(shown(entry.name)), or another header of it")
            }
            position = entry.data + entry.size
        }
        guard position == directory else { throw hidden(file, "bytes before its directory") }
    }

    fileprivate static func hidden(_ file: String, _ what: String) -> BundleError {
        BundleError("\(file): it holds \(what), which its directory does not list: pack it with edgeformer pack")
    }
}

/// One entry of the central directory.
private struct Entry {
    private static let signature = 0x0201_4B50
    private static let entryBytes = 46
    private static let localBytes = 30

    let name: String
    let size: Int
    let crc: Int
    /// Where the member's header starts.
    let local: Int
    /// Where its bytes begin.
    let data: Int
    /// Of the entry itself.
    let length: Int
    /// What the header says too: version, flags, method, time, date, CRC and both sizes.
    let facts: Data

    init(_ data: Data, at position: Int, before end: Int, file: String) throws {
        let corrupted = BundleError("\(file): not a bundle's zip, or truncated")
        guard position + Self.entryBytes <= end, number(data, position, 4) == Self.signature else { throw corrupted }
        let nameBytes = number(data, position + 28, 2)
        length = Self.entryBytes + nameBytes
        let nameBegin = data.startIndex + position + Self.entryBytes
        guard position + length <= end,
            let name = String(validating: data[nameBegin..<nameBegin + nameBytes], as: UTF8.self)
        else { throw corrupted }
        guard !name.hasSuffix("/") else {
            throw BundleError("\(shown(name)): a zip's folder entry: expected files only")
        }
        try Names.check(name)
        let kind = number(data, position + 38, 4) >> 28
        guard kind == 0 || kind == 8 else {
            throw BundleError("\(shown(name)) is a link or device: a bundle holds plain files only")
        }
        let flags = number(data, position + 8, 2)
        guard flags & 0x2041 == 0 else { throw BundleError("\(shown(name)) is encrypted") }
        guard flags & 8 == 0 else { throw Archive.hidden(file, "a data descriptor of \(shown(name))") }
        size = number(data, position + 24, 4)
        guard number(data, position + 10, 2) == 0, number(data, position + 20, 4) == size else {
            throw BundleError("\(shown(name)) is compressed: expected a stored zip")
        }
        // Extra fields, of which zip64's alone is allowed, and comments.
        guard number(data, position + 30, 4) == 0 else {
            throw Archive.hidden(file, "an extra field or comment of \(shown(name))")
        }
        self.name = name
        crc = number(data, position + 16, 4)
        local = number(data, position + 42, 4)
        self.data = local + Self.localBytes + nameBytes
        facts = Data(data.dropFirst(position + 6).prefix(22))
    }
}

/// A little-endian number of so many bytes.
private func number(_ data: Data, _ offset: Int, _ bytes: Int) -> Int {
    let start = data.startIndex + offset
    return data[start..<start + bytes].reversed().reduce(0) { $0 << 8 | Int($1) }
}

/// The bytes of a number, the lowest first; zeros where there are more than it has.
private func little(_ number: Int, _ bytes: Int) -> Data {
    Data((0..<bytes).map { $0 < 8 ? UInt8(truncatingIfNeeded: number >> (8 * $0)) : 0 })
}
