import Foundation

/// A file of a published bundle. Its deltas are not read here: the whole file is what a phone downloads.
public struct PublishedFile: Sendable {
    /// The SHA-256 of its bytes, in hexadecimal.
    public let sha256: String
    /// How many bytes it has.
    public let size: Int

    /// Where a site has it, relative to its index.
    public var address: String { "files/\(sha256.prefix(2))/\(sha256)" }
}

/// All files of a bundle by their names, the manifest and its signature included.
public struct PublishedBundle: Sendable {
    public let files: [String: PublishedFile]

    /// A name of this content: the SHA-256 of all names and hashes, in hexadecimal.
    public var id: String {
        var hash = Sha256()
        for (name, file) in files.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
            hash.update(Data("\(file.sha256) \(name)\n".utf8))
        }
        return hash.hexDigest()
    }
}

/// What a publisher's site says to be published: docs/delivery.md. An app that downloads bundles by its own means, as by
/// Background Assets, reads it, and then takes only what it lists.
public struct PublishedIndex: Sendable {
    /// The name of the file.
    public static let fileName = "index.signed"
    /// Higher than that of every index published before.
    public let number: Int
    /// When that was.
    public let published: Date
    /// When a device that is shown this index no longer believes that it is the newest.
    public let expires: Date
    /// Bundles by the last part of their addresses.
    public let bundles: [String: PublishedBundle]

    private let bytes: Data

    private static let maxBytes = 4 << 20
    private static let line = Data("edgeformer-index-1 ".utf8)
    private static let domain = Data("edgeformer-index-1\n".utf8)
    private static let numbers = 1...(1 << 53) - 1
    private static let clockSlack: TimeInterval = 24 * 3600

    /// Read an index from an untrusted place; nothing in it is looked at before its signature fits.
    ///
    /// - Parameters:
    ///   - bytes: of index.signed.
    ///   - keys: public keys of 32 bytes, of which one must have signed it.
    /// - Throws: `BundleError`: too large, not signed by one of the keys, or not as docs/delivery.md says. `InputError`: a
    ///   key that is none, or a system that cannot check signatures.
    public init(_ bytes: Data, keys: [Data]) throws {
        try Signature.check(keys: keys)
        let (signature, content) = try Self.parts(bytes)
        guard try Signature.fits(signature, message: Self.domain + content, keys: keys) else {
            throw BundleError("\(Self.fileName): not signed by a required key, or changed after it was signed")
        }
        try self.init(content, of: bytes)
    }

    /// What the JSON behind a signature's line says, whoever signed it.
    init(_ content: Data, of bytes: Data) throws {
        let value = try StrictJson.parse(content, file: Self.fileName, maxBytes: Self.maxBytes)
        if case .object(let object) = value, case .integer(let version) = object["format_version"], version > 1 {
            throw BundleError("\(Self.fileName): made by a newer version (\(version)): upgrade the app")
        }
        let keys = ["format_version", "number", "published", "expires", "bundles"]
        let record = try Record(value, at: Self.fileName, keys: keys, ignoringOthers: true)
        _ = try record.integer("format_version", 1...1)
        let found = try record.members("bundles", count: 1...1000) { name, value, path in
            try Names.check(name)
            guard !name.hasPrefix("."), !name.contains("/") else {
                throw BundleError("\(path): expected a bundle's name without / or a dot before it")
            }
            return try Self.bundle(value, path)
        }
        try Names.checkDistinct(found.map(\.key))
        number = try record.integer("number", Self.numbers)
        published = try Self.time(record.text("published"))
        expires = try Self.time(record.text("expires"))
        bundles = Dictionary(uniqueKeysWithValues: found.map { ($0.key, $0.value) })
        self.bytes = bytes
    }

    /// Refuse an index that is older than one seen before, or that has expired.
    ///
    /// - Parameters:
    ///   - known: the newest index, signed by the same key, that was accepted before; nil: there is none.
    ///   - now: the device's time. A clock that was set back does not make an old index young: it is at least the time at
    ///     which `known` was published.
    /// - Throws: `BundleError`: older (a rollback), another one of the same number, or expired (a freeze).
    public func checkNewer(than known: PublishedIndex?, now: Date = Date()) throws {
        let time = max(now, known?.published ?? now)
        if let known, number < known.number {
            throw BundleError("\(Self.fileName): its number is \(number), and \(known.number) was seen before")
        }
        if let known, number == known.number, bytes != known.bytes {
            throw BundleError("\(Self.fileName): another index of the number \(number) was seen before")
        }
        guard published <= time + Self.clockSlack else {
            throw BundleError("\(Self.fileName): published after this device's time: set its clock")
        }
        guard time <= expires else {
            throw BundleError("\(Self.fileName): expired: the site shows an old index, or must publish")
        }
    }

    /// The signature's 64 bytes and the JSON that it is of.
    static func parts(_ bytes: Data) throws -> (signature: Data, content: Data) {
        guard bytes.count <= maxBytes else {
            throw BundleError("\(fileName): expected at most \(maxBytes) bytes, found \(bytes.count)")
        }
        let digits = [UInt8](bytes.dropFirst(line.count).prefix(2 * Signature.byteCount))
        let rest = bytes.dropFirst(line.count + 2 * Signature.byteCount)
        guard bytes.starts(with: line), digits.count == 2 * Signature.byteCount, digits.allSatisfy(isHexadecimal),
            rest.first == UInt8(ascii: "\n")
        else {
            throw BundleError("\(fileName): expected the line of a signature")
        }
        let pairs = stride(from: 0, to: digits.count, by: 2)
        return (Data(pairs.map { nibble(digits[$0]) << 4 | nibble(digits[$0 + 1]) }), Data(rest.dropFirst()))
    }

    private static func bundle(_ value: JsonValue, _ path: String) throws -> PublishedBundle {
        let record = try Record(value, at: path, keys: ["files"], ignoringOthers: true)
        let files = try record.members("files", count: 1...10_002) { name, value, path in
            try Names.check(name)
            let file = try Record(value, at: path, keys: ["sha256", "size"], ignoringOthers: true)
            let sha256 = try file.text("sha256", "64 hexadecimal digits") {
                $0.utf8.count == 64 && $0.utf8.allSatisfy(isHexadecimal)
            }
            return PublishedFile(sha256: sha256, size: try file.integer("size", 0...(1 << 40)))
        }
        try Names.checkDistinct(files.map(\.key))
        return PublishedBundle(files: Dictionary(uniqueKeysWithValues: files.map { ($0.key, $0.value) }))
    }

    /// A time like 2027-01-31T12:00:00Z, of the Gregorian calendar in UTC.
    static func time(_ text: String) throws -> Date {
        let wrong = BundleError("\(fileName): expected a time like 2027-01-31T12:00:00Z, found \(shown(text))")
        let shape = Array("2000-00-00T00:00:00Z".utf8)
        let bytes = Array(text.utf8)
        guard bytes.count == shape.count, bytes[0] == shape[0],
            zip(bytes, shape).allSatisfy({ isDigit($1) ? isDigit($0) : $0 == $1 })
        else { throw wrong }
        func number(_ range: Range<Int>) -> Int { bytes[range].reduce(0) { 10 * $0 + Int($1 - UInt8(ascii: "0")) } }
        let (year, month, day) = (number(0..<4), number(5..<7), number(8..<10))
        let (hour, minute, second) = (number(11..<13), number(14..<16), number(17..<19))
        let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let lengths = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        guard (1...12).contains(month), (1...lengths[month - 1]).contains(day), hour < 24, minute < 60, second < 60
        else { throw wrong }
        let past = year - 1
        let leapDays = past / 4 - past / 100 + past / 400 - 477  // of the years from 1970 on
        let days = 365 * (year - 1970) + leapDays + lengths.prefix(month - 1).reduce(0, +) + day - 1
        return Date(timeIntervalSince1970: TimeInterval(((days * 24 + hour) * 60 + minute) * 60 + second))
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }

    private static func isHexadecimal(_ byte: UInt8) -> Bool { isDigit(byte) || (0x61...0x66).contains(byte) }

    private static func nibble(_ byte: UInt8) -> UInt8 { isDigit(byte) ? byte - 0x30 : byte - 0x61 + 10 }
}
