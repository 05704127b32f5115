import EdgeFormer
import Foundation

/// A bundle that lies on the device; what it says about itself, which is not yet checked against its files.
public struct InstalledBundle: Identifiable, Hashable, Sendable {
    /// Where it lies.
    public let url: URL
    /// As its manifest says; of one that cannot be read, its file's name.
    public let name: String
    /// What it does; nil: it cannot be read.
    public let task: BundleTask?
    /// "coreml, fp16", or why it cannot be read.
    public let detail: String

    /// The place, which no other bundle has.
    public var id: URL { url }
}

/// Finds the bundles in some folders: what the app brings with it, and what its user put into its documents.
public struct BundleLibrary: Sendable {
    private let folders: [URL]

    /// A library over folders, which need not exist.
    public init(folders: [URL]) { self.folders = folders }

    /// Every folder with a manifest and every zip, by name.
    public func bundles() -> [InstalledBundle] {
        let manager = FileManager.default
        let found = folders.flatMap { folder in
            ((try? manager.contentsOfDirectory(atPath: folder.path)) ?? []).sorted().map(folder.appendingPathComponent)
        }
        return found.compactMap(Self.inspect)
    }

    /// nil where there is no bundle.
    private static func inspect(_ url: URL) -> InstalledBundle? {
        let manifest = url.appendingPathComponent(Manifest.fileName)
        guard FileManager.default.fileExists(atPath: manifest.path) || url.pathExtension == "zip" else { return nil }
        do {
            let found = try ModelBundle.manifest(of: url)
            let detail = "\(found.target.rawValue), \(found.precision)"
            return InstalledBundle(url: url, name: found.name, task: found.task, detail: detail)
        } catch {
            return InstalledBundle(url: url, name: url.lastPathComponent, task: nil, detail: error.localizedDescription)
        }
    }
}
