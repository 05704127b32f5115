import Foundation

/// The members of a bundle's stored zip, read without trusting what it says about itself (APPNOTE.TXT, section 4.3).
struct Archive {
    static let maxFiles = 10_000
    private static let maxDirectoryBytes = 16 << 20
    // What a writer may add to each member (headers, names) and to the whole archive (end records).
    private static let memberOverheadBytes = 2048
    private static let archiveOverheadBytes = 1024
    private static let endBytes = 22
    private static let entryBytes = 46
    private static let localBytes = 30

    /// The size of each member by name.
    let sizes: [String: Int]
    private let places: [String: Range<Int>]
    private let data: Data

    /// Check a zip, which is mapped into memory, not read.
    ///
    /// - Throws: `BundleError`: truncated, compressed, encrypted, with links, folders, unsafe or duplicate names, or a bomb.
    init(_ url: URL) throws {
        let file = url.lastPathComponent
        do {
            data = try Data(contentsOf: url, options: .alwaysMapped)
        } catch {
            throw BundleError("\(file): cannot be read: \(error.localizedDescription)")
        }
        let spoiled = BundleError("\(file): not a bundle's zip, or truncated")
        let end = data.count - Self.endBytes
        guard end >= 0, Self.number(data, end, 4) == 0x0605_4B50 else { throw spoiled }
        let count = Self.number(data, end + 10, 2)
        let directoryBytes = Self.number(data, end + 12, 4)
        let directory = Self.number(data, end + 16, 4)
        guard Self.number(data, end + 4, 4) == 0, Self.number(data, end + 8, 2) == count else {
            throw BundleError("\(file): expected a zip in one piece")
        }
        guard count <= Self.maxFiles + 2, directoryBytes <= Self.maxDirectoryBytes else {
            throw BundleError("\(file): expected at most \(Self.maxFiles) files, found \(count)")
        }
        guard directory + directoryBytes <= end else { throw spoiled }
        var places: [String: Range<Int>] = [:]
        var names: [String] = []
        var position = directory
        for _ in 0..<count {
            guard position + Self.entryBytes <= end, Self.number(data, position, 4) == 0x0201_4B50 else {
                throw spoiled
            }
            let entry = try Entry(data, at: position, file: file)
            guard places[entry.name] == nil else { throw BundleError("\(shown(entry.name)) occurs twice in the zip") }
            let content = entry.local + Self.localBytes
            guard content <= directory, Self.number(data, entry.local, 4) == 0x0403_4B50 else { throw spoiled }
            let nameBytes = Self.number(data, entry.local + 26, 2)
            let start = content + nameBytes + Self.number(data, entry.local + 28, 2)
            guard start + entry.size <= directory, data[content..<content + nameBytes].elementsEqual(entry.name.utf8)
            else {
                throw spoiled
            }
            places[entry.name] = start..<start + entry.size
            names.append(entry.name)
            position += entry.length
        }
        try Names.checkDistinct(names)
        let total = places.values.reduce(0) { $0 + $1.count }
        guard (0...Self.archiveOverheadBytes + Self.memberOverheadBytes * count).contains(data.count - total) else {
            throw BundleError("\(file): its files state \(total) bytes of \(data.count): spoiled, or a zip bomb")
        }
        self.places = places
        self.sizes = places.mapValues(\.count)
    }

    /// A member's bytes, without a copy.
    ///
    /// - Throws: `BundleError`: no such member.
    func read(_ name: String) throws -> Data {
        guard let place = places[name] else { throw BundleError("no \(name) in the zip: expected a bundle's zip") }
        return data[place]
    }

    /// A little-endian number of so many bytes.
    fileprivate static func number(_ data: Data, _ offset: Int, _ bytes: Int) -> Int {
        let start = data.startIndex + offset
        return data[start..<start + bytes].reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    /// One entry of the central directory.
    private struct Entry {
        let name: String
        let size: Int
        let local: Int
        let length: Int

        init(_ data: Data, at position: Int, file: String) throws {
            let nameBytes = number(data, position + 28, 2)
            length = entryBytes + nameBytes + number(data, position + 30, 2) + number(data, position + 32, 2)
            let nameStart = position + entryBytes
            guard position + length <= data.count - endBytes,
                let name = String(validating: data[nameStart..<nameStart + nameBytes], as: UTF8.self)
            else {
                throw BundleError("\(file): not a bundle's zip, or truncated")
            }
            guard !name.hasSuffix("/") else {
                throw BundleError("\(shown(name)): a zip's folder entry: expected files only")
            }
            try Names.check(name)
            let kind = number(data, position + 38, 4) >> 28
            guard kind == 0 || kind == 8 else {
                throw BundleError("\(shown(name)) is a link or device: a bundle holds plain files only")
            }
            guard number(data, position + 8, 2) & 0x2041 == 0 else { throw BundleError("\(shown(name)) is encrypted") }
            size = number(data, position + 24, 4)
            guard number(data, position + 10, 2) == 0, number(data, position + 20, 4) == size else {
                throw BundleError("\(shown(name)) is compressed: expected a stored zip")
            }
            self.name = name
            local = number(data, position + 42, 4)
            guard local + localBytes <= data.count else {
                throw BundleError("\(file): not a bundle's zip, or truncated")
            }
        }
    }
}
