/// Names of files inside a bundle: relative, ASCII, the same on every file system, never outside the bundle.
enum Names {
    static let maxLength = 255
    static let maxParts = 16

    private static let devices: Set<String> = {
        let numbered = ["com", "lpt"].flatMap { stem in (0...9).map { "\(stem)\($0)" } }
        return Set(["con", "prn", "aux", "nul"] + numbered)
    }()

    /// Refuse a name that could leave the bundle or that some file system cannot store.
    ///
    /// - Throws: `BundleError` with the rule that the name breaks.
    static func check(_ name: String) throws {
        let parts = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map { Array($0) }
        guard !name.isEmpty, !name.utf8.starts(with: [0x2F]), !parts.contains(Array("..".utf8)) else {
            throw BundleError(
                "file name \(shown(name)) points outside the bundle: expected a relative name like 'vectors/a.json'")
        }
        guard name.unicodeScalars.count <= maxLength, parts.count <= maxParts else {
            throw BundleError(
                "file name \(shown(name)) is too long: at most \(maxLength) characters in \(maxParts) parts")
        }
        guard parts.allSatisfy(isPortable) else {
            throw BundleError(
                "file name \(shown(name)) is not portable: expected parts of A-Z a-z 0-9 _ @ + . - that do not end with a dot"
            )
        }
    }

    /// Refuse names that are the same on a case-insensitive file system, and files that are also folders.
    ///
    /// - Throws: `BundleError` with the two that collide. The names have passed `check`, so they are ASCII.
    static func checkDistinct(_ names: some Sequence<String>) throws {
        var seen: [String: String] = [:]
        var folders: [String: String] = [:]
        for name in names {
            if let other = seen.updateValue(name, forKey: name.lowercased()) {
                throw BundleError("file names \(shown(other)) and \(shown(name)) are the same on some file systems")
            }
            var folder = ""
            for part in name.split(separator: "/").dropLast() {
                folder += folder.isEmpty ? String(part) : "/\(part)"
                let other = folders[folder.lowercased(), default: folder]
                guard other == folder else {
                    throw BundleError("folders \(shown(other)) and \(shown(folder)) are the same on some file systems")
                }
                folders[folder.lowercased()] = folder
            }
        }
        if let both = seen.keys.first(where: { folders[$0] != nil }) {
            throw BundleError("\(shown(both)) is both a file and a folder")
        }
    }

    private static func isPortable(_ part: [UInt8]) -> Bool {
        guard let last = part.last, last != UInt8(ascii: ".") else { return false }
        let others = Array("_@+.-".utf8)
        guard part.allSatisfy({ isAlphanumeric($0) || others.contains($0) }) else { return false }
        let stem = part.prefix { $0 != UInt8(ascii: ".") }
        return !devices.contains(String(decoding: stem, as: UTF8.self).lowercased())
    }
}
