#if canImport(CoreML)
    import CoreML
    import EdgeFormer
    import Foundation

    /// Core ML packages compiled for this device, kept in the app's cache: compiling takes seconds, and once is enough.
    /// Those that were not used for longest go.
    enum CompiledModels {
        /// Where each package of a bundle lies compiled, by its name in the manifest.
        ///
        /// - Throws: `EngineError`: Core ML cannot compile a package, or there is no room for it.
        static func urls(of bundle: ModelBundle) async throws -> [String: URL] {
            var urls: [String: URL] = [:]
            for file in Set(bundle.manifest.programs.map(\.file)) {
                do {
                    urls[file] = try await compiled(file, of: bundle)
                } catch let error as BundleError {
                    throw error
                } catch {
                    throw EngineError("Core ML cannot compile \(file): \(error.localizedDescription)")
                }
            }
            if let folder = urls.values.first?.deletingLastPathComponent() {
                OldCopies.remove(in: folder, used: Array(urls.values))
            }
            return urls
        }

        private static func compiled(_ file: String, of bundle: ModelBundle) async throws -> URL {
            let manager = FileManager.default
            let caches = try manager.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            let folder = caches.appendingPathComponent("EdgeFormer", isDirectory: true)
            let place = folder.appendingPathComponent("\(key(file, bundle.manifest)).mlmodelc", isDirectory: true)
            if manager.fileExists(atPath: place.path) { return place }
            try manager.createDirectory(at: folder, withIntermediateDirectories: true)
            let made = try await MLModel.compileModel(at: try bundle.url(file))
            do {
                try manager.moveItem(at: made, to: place)
            } catch  where manager.fileExists(atPath: place.path) {
                // Another task was faster; both made the same.
                try? manager.removeItem(at: made)
            }
            return place
        }

        /// A name that another package, or a system that compiles in another way, does not get: the hash of the hashes of
        /// the package's files, and the system's version.
        private static func key(_ file: String, _ manifest: Manifest) -> String {
            let hashes = manifest.files.filter { $0.key.hasPrefix(file + "/") }
                .sorted { $0.key < $1.key }
                .map { "\($0.key) \($0.value.sha256)" }
            let system = ProcessInfo.processInfo.operatingSystemVersionString
            return FileHash.sha256(Data((hashes + [system]).joined(separator: "\n").utf8))
        }
    }
#endif
