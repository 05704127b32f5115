import EdgeCore
import EdgeCoreML
import Foundation

/// Opens the engine of a bundle.
public typealias EngineFactory = @Sendable (ModelBundle) async throws -> any Engine

/// The engines that an app has, by what they run.
public struct Engines: Sendable {
    private let factories: [Target: EngineFactory]

    /// The engines of an app; an app that links ExecuTorch adds `.executorch`.
    public init(_ factories: [Target: EngineFactory] = [.coreml: { try await CoreMLEngine.open($0) }]) {
        self.factories = factories
    }

    /// Whether the app can run bundles for a target.
    public func canRun(_ target: Target) -> Bool { factories[target] != nil }

    /// Open the engine of a bundle.
    ///
    /// - Throws: `EngineError`: this app has no engine for it, or the engine cannot open it.
    public func open(_ bundle: ModelBundle) async throws -> any Engine {
        let target = bundle.manifest.target
        guard let factory = factories[target] else {
            let known = factories.keys.map(\.rawValue).sorted().joined(separator: ", ")
            throw EngineError(
                "this app runs bundles for \(known), found \(target.rawValue): convert it for one of these")
        }
        return try await factory(bundle)
    }
}
