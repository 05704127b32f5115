/// An engine that an app has. Each product adds its own: `.coreML`, `.executorch`, `.onnx()`.
public struct EngineProvider: Sendable {
    /// What it runs; nil: bundles of any target.
    public let target: Target?
    /// Opens the engine of a bundle.
    public let open: @Sendable (ModelBundle) async throws -> any Engine

    /// An engine of an app's own.
    public init(_ target: Target?, open: @escaping @Sendable (ModelBundle) async throws -> any Engine) {
        self.target = target
        self.open = open
    }

    /// Answers what bundles have recorded, for tests and previews.
    public static let recorded = EngineProvider(nil) { try RecordedEngine($0) }
}

extension [EngineProvider] {
    /// Open the engine of a bundle: the first that runs its target.
    ///
    /// - Throws: `EngineError`: there is none, or it cannot open the bundle.
    public func open(_ bundle: ModelBundle) async throws -> any Engine {
        let target = bundle.manifest.target
        guard let provider = first(where: { $0.target == nil || $0.target == target }) else {
            let known = compactMap { $0.target?.rawValue }.sorted().joined(separator: ", ")
            throw EngineError(
                "this app runs bundles for \(known.isEmpty ? "no target" : known), found \(target.rawValue): convert it "
                    + "for one of these, or give its engine")
        }
        return try await provider.open(bundle)
    }
}
