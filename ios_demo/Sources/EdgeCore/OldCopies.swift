import Foundation

/// What an app makes of its bundles and keeps: compiled models. Those that were used last stay.
public enum OldCopies {
    /// How many stay.
    public static let kept = 8

    /// Remember that some copies in a folder are used now, and remove those of the others that were not used for longest.
    public static func remove(in folder: URL, used: [URL], keeping count: Int = kept) {
        let manager = FileManager.default
        for url in used { try? manager.setAttributes([.modificationDate: Date()], ofItemAtPath: url.path) }
        let found = (try? manager.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
        let dated = found.map { url in
            (url, ((try? manager.attributesOfItem(atPath: url.path))?[.modificationDate] as? Date) ?? .distantPast)
        }
        for (url, _) in dated.sorted(by: { $0.1 > $1.1 }).dropFirst(max(count, used.count)) {
            try? manager.removeItem(at: url)
        }
    }
}
