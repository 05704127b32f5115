import Foundation

/// An open bundle whose every file has the size and hash that its manifest states. Files are mapped into memory.
///
/// A zip, and a bundle whose signature was required, is copied into a private temporary folder as it is checked, and only
/// the copy is used. It is removed when the last reference to the bundle goes.
public final class ModelBundle: Sendable {
    /// What the bundle says about itself.
    public let manifest: Manifest
    /// Whether it has a signature; it was checked if opening required one.
    public let isSigned: Bool
    private let folder: URL
    private let isTemporary: Bool

    private init(folder: URL, manifest: Manifest, isSigned: Bool, isTemporary: Bool) {
        self.folder = folder
        self.manifest = manifest
        self.isSigned = isSigned
        self.isTemporary = isTemporary
    }

    deinit {
        if isTemporary { try? FileManager.default.removeItem(at: folder) }
    }

    /// Open a bundle and check all of it. This reads every file once, so keep it off the main thread.
    ///
    /// - Parameters:
    ///   - url: the bundle's folder, or a stored zip of it.
    ///   - required: whose bundle it must be, and which.
    /// - Returns: the bundle, every file checked.
    /// - Throws: `BundleError`: it does not follow BUNDLE.md, or is not what is required; the message says where.
    public static func open(_ url: URL, required: Required = .nothing) throws -> ModelBundle {
        let reader = try BundleReader(url)
        let manifestBytes = try reader.read(Manifest.fileName, atMost: Manifest.maxBytes)
        let isSigned = reader.sizes[Signature.fileName] != nil
        let signature = isSigned ? try reader.read(Signature.fileName, atMost: Signature.byteCount) : nil
        try required.check(signature, of: manifestBytes)
        let manifest = try Manifest.parse(manifestBytes)
        try compareNames(manifest, reader.sizes)
        guard manifest.files[Manifest.refusedFile] == nil else {
            throw BundleError(
                "the gates of its conversion refused this bundle (\(Manifest.refusedFile)): convert it otherwise")
        }
        try FileSizes.check(manifest)
        for (name, entry) in manifest.files {
            try FileSizes.refuseHoles(try reader.read(name, atMost: entry.size), name)
        }
        if required.needsSignature { try reader.checkCanonical() }
        try required.check(name: manifest.name, version: try release(manifest, reader))
        guard reader.isZip || required.needsSignature else {
            for (name, entry) in manifest.files {
                try compareHash(try reader.read(name, atMost: entry.size), name, entry)
            }
            return ModelBundle(folder: url, manifest: manifest, isSigned: isSigned, isTemporary: false)
        }
        let folder = TemporaryCopies.folder()
        let copy = ModelBundle(folder: folder, manifest: manifest, isSigned: isSigned, isTemporary: true)
        try write(manifestBytes, to: folder.appendingPathComponent(Manifest.fileName))
        for (name, entry) in manifest.files {
            let bytes = try reader.read(name, atMost: entry.size)
            try write(bytes, to: folder.appendingPathComponent(name))
            try compareHash(try copy.readBytes(name), name, entry)
        }
        return copy
    }

    /// What a bundle says about itself, for lists: its files are not looked at, so nothing of it is trusted yet.
    ///
    /// - Throws: `BundleError`: no bundle, or its manifest does not follow BUNDLE.md.
    public static func manifest(of url: URL) throws -> Manifest {
        try Manifest.parse(try BundleReader(url).read(Manifest.fileName, atMost: Manifest.maxBytes))
    }

    /// Where a file of the bundle, or a folder of files such as a Core ML package, lies while the bundle is in use.
    ///
    /// - Throws: `BundleError`: the manifest does not list it.
    public func url(_ name: String) throws -> URL {
        guard manifest.files[name] != nil || manifest.files.keys.contains(where: { $0.hasPrefix(name + "/") }) else {
            throw BundleError("no file \(shown(name)) in the bundle \(manifest.name)")
        }
        return folder.appendingPathComponent(name)
    }

    /// The bytes of a listed file, mapped into memory.
    ///
    /// - Throws: `BundleError`: the manifest does not list it, or it cannot be read any more.
    public func readBytes(_ name: String) throws -> Data {
        do {
            return try Data(contentsOf: try url(name), options: .alwaysMapped)
        } catch let error as BundleError {
            throw error
        } catch {
            throw BundleError("\(shown(name)): cannot be read: \(error.localizedDescription)")
        }
    }

    /// The text of a listed file.
    ///
    /// - Throws: `BundleError`: as `readBytes`, or it is no UTF-8.
    public func readText(_ name: String) throws -> String {
        guard let text = String(validating: try readBytes(name), as: UTF8.self) else {
            throw BundleError("\(name): expected UTF-8 text")
        }
        return text
    }

    /// The size of all files that the manifest lists.
    public var sizeBytes: Int { manifest.files.values.reduce(0) { $0 + $1.size } }

    /// The version of its release.json; nil where it has none.
    private static func release(_ manifest: Manifest, _ reader: BundleReader) throws -> Int? {
        guard manifest.files[Release.fileName] != nil else { return nil }
        return try Release.version(try reader.read(Release.fileName, atMost: Release.maxBytes), name: manifest.name)
    }

    private static func write(_ bytes: Data, to url: URL) throws {
        do {
            let folder = url.deletingLastPathComponent()
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            try bytes.write(to: url)
        } catch {
            throw BundleError("\(url.lastPathComponent): cannot be copied: \(error.localizedDescription)")
        }
    }

    private static func compareNames(_ manifest: Manifest, _ sizes: [String: Int]) throws {
        let unlisted = [Manifest.fileName, Signature.fileName]
        for name in sizes.keys.sorted() where manifest.files[name] == nil && !unlisted.contains(name) {
            try Names.check(name)
            throw BundleError("extra file \(shown(name)): the manifest does not list it")
        }
        for (name, entry) in manifest.files.sorted(by: { $0.key < $1.key }) {
            guard let size = sizes[name], !unlisted.contains(name) else {
                throw BundleError("file \(shown(name)) is missing: the manifest lists it")
            }
            guard size == entry.size else {
                throw BundleError(
                    "\(name): expected \(entry.size) bytes as in the manifest, found \(size): get it again")
            }
        }
    }

    private static func compareHash(_ bytes: Data, _ name: String, _ entry: FileEntry) throws {
        var hash = Sha256()
        let chunkBytes = 1 << 20
        for start in stride(from: 0, to: bytes.count, by: chunkBytes) {
            hash.update(bytes.dropFirst(start).prefix(chunkBytes))
        }
        guard hash.hexDigest() == entry.sha256 else {
            throw BundleError("\(name): its SHA-256 differs from the manifest's: the file is corrupted, get it again")
        }
    }
}

/// The folders of copies, each named after the process that uses it.
private enum TemporaryCopies {
    /// A new one. Those of processes that ended before they removed theirs go.
    static func folder() -> URL {
        let manager = FileManager.default
        let names = (try? manager.contentsOfDirectory(atPath: manager.temporaryDirectory.path)) ?? []
        for name in names {
            let parts = name.split(separator: "-", maxSplits: 2)
            guard parts.count == 3, parts[0] == "edgeformer", let process = Int32(parts[1]), hasEnded(process) else {
                continue
            }
            try? manager.removeItem(at: manager.temporaryDirectory.appendingPathComponent(name))
        }
        let name = "edgeformer-\(ProcessInfo.processInfo.processIdentifier)-\(UUID().uuidString)"
        return manager.temporaryDirectory.appendingPathComponent(name)
    }

    private static func hasEnded(_ process: Int32) -> Bool {
        process > 0 && kill(process, 0) == -1 && errno == ESRCH
    }
}

/// The files of a bundle before it is trusted: a folder's or a zip's.
private struct BundleReader {
    let sizes: [String: Int]
    let isZip: Bool
    private let url: URL
    private let archive: Archive?

    init(_ url: URL) throws {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw BundleError("no bundle at \(url.lastPathComponent): expected a bundle's folder or zip")
        }
        self.url = url
        isZip = !isFolder.boolValue
        archive = isZip ? try Archive(url) : nil
        sizes = try archive?.sizes ?? Folder.sizes(in: url)
        guard sizes[Manifest.fileName] != nil else {
            throw BundleError(
                "\(url.lastPathComponent): no \(Manifest.fileName) in it: expected a bundle's folder or zip")
        }
    }

    /// Refuses a zip with bytes that no signature covers.
    func checkCanonical() throws { try archive?.checkCanonical() }

    func read(_ name: String, atMost limit: Int) throws -> Data {
        guard let size = sizes[name], size <= limit else {
            throw BundleError("\(name): expected at most \(limit) bytes, found \(sizes[name] ?? 0)")
        }
        if let archive { return try archive.read(name) }
        do {
            return try Data(contentsOf: url.appendingPathComponent(name), options: .alwaysMapped)
        } catch {
            throw BundleError("\(name): cannot be read: \(error.localizedDescription)")
        }
    }
}
