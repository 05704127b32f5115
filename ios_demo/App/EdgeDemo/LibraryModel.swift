import EdgeFormer
import EdgeFormerCoreML
import EdgeDemoKit
import Foundation
import Observation

#if canImport(EdgeFormerExecuTorch)
    import EdgeFormerExecuTorch
#endif

/// The bundles on the device and the one that is in use; screens share it.
@MainActor
@Observable
final class LibraryModel {
    /// Every bundle that was found, readable or not.
    private(set) var bundles: [InstalledBundle] = []
    /// One bundle is open at a time: models are large.
    private var open: (bundle: InstalledBundle, session: Task<BundleSession, any Error>)?

    private let engines: [EngineProvider] = {
        var engines = [EngineProvider.coreML]
        #if canImport(EdgeFormerExecuTorch)
            engines.append(.executorch)
        #endif
        return engines
    }()

    /// What the app brings with it, and what its user copied into its folder (Files, Finder).
    private let library: BundleLibrary = {
        let resources = Bundle.main.url(forResource: "Bundles", withExtension: nil)
        let documents = FileManager.default.urls(for: .documentDirectory, in: .userDomainMask).first
        return BundleLibrary(folders: [resources, documents].compactMap { $0 })
    }()

    /// Look for bundles again.
    func refresh() async {
        let library = library
        bundles = await Task.detached { library.bundles() }.value
    }

    /// The readable bundles that do one of some things.
    func bundles(for tasks: Set<BundleTask>) -> [InstalledBundle] {
        bundles.filter { $0.task.map(tasks.contains) ?? false }
    }

    /// The session of a bundle: the one that is open, or a new one in its place.
    func session(_ bundle: InstalledBundle) async throws -> BundleSession {
        if let open, open.bundle == bundle { return try await open.session.value }
        open?.session.cancel()
        let engines = engines
        let session = Task { try await BundleSession(bundle.url, engines: engines, decoder: decodeImage) }
        open = (bundle, session)
        do {
            return try await session.value
        } catch {
            if open?.bundle == bundle { open = nil }
            throw error
        }
    }
}
