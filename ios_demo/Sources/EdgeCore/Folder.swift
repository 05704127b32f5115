import Foundation

/// The files of a bundle's folder.
enum Folder {
    /// Plain files that file managers leave in folders that people look into: no part of a bundle.
    private static let leftBehind: Set<String> = [".DS_Store", "Thumbs.db", "desktop.ini"]

    /// The size of every file below a folder by name; links, devices and empty folders are errors, not followed.
    ///
    /// - Throws: `BundleError`: something that a bundle cannot hold, or more files than it may.
    static func sizes(in folder: URL) throws -> [String: Int] {
        var sizes: [String: Int] = [:]
        try scan(folder, prefix: "", depth: 1, into: &sizes)
        return sizes
    }

    private static func isLeftBehind(_ entry: String, in folder: URL) -> Bool {
        guard leftBehind.contains(entry) else { return false }
        let path = folder.appendingPathComponent(entry).path
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        return attributes?[.type] as? FileAttributeType == .typeRegular
    }

    private static func scan(_ folder: URL, prefix: String, depth: Int, into sizes: inout [String: Int]) throws {
        guard depth <= Names.maxParts else {
            throw BundleError("\(shown(prefix)): more than \(Names.maxParts) folders deep")
        }
        let manager = FileManager.default
        let entries: [String]
        do {
            entries = try manager.contentsOfDirectory(atPath: folder.path).filter { !isLeftBehind($0, in: folder) }
        } catch {
            throw BundleError("\(shown(prefix)): cannot be read: \(error.localizedDescription)")
        }
        guard depth == 1 || !entries.isEmpty else {
            throw BundleError("\(shown(prefix)) is an empty folder that the manifest does not list")
        }
        for entry in entries.sorted() {
            let name = prefix + entry
            let url = folder.appendingPathComponent(entry)
            let attributes = try? manager.attributesOfItem(atPath: url.path)
            switch attributes?[.type] as? FileAttributeType {
            case .typeDirectory?:
                try scan(url, prefix: name + "/", depth: depth + 1, into: &sizes)
            case .typeRegular?:
                sizes[name] = (attributes?[.size] as? NSNumber)?.intValue ?? 0
                guard sizes.count <= Archive.maxFiles + 2 else {
                    throw BundleError("\(shown(prefix)): expected at most \(Archive.maxFiles) files")
                }
            case .typeSymbolicLink?:
                throw BundleError("\(shown(name)) is a symbolic link: a bundle holds plain files only")
            default:
                throw BundleError("\(shown(name)) is not a plain file")
            }
        }
    }
}
