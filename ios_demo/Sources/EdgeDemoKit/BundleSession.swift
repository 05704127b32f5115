import EdgeFormer
import Foundation

/// A bundle in use, with what the app shows of it.
public actor BundleSession {
    /// What answers.
    public nonisolated let model: Model
    /// From its files to the first answer: checking, compiling, loading and warming up.
    public nonisolated let loadMs: Double
    /// What the bundle says about itself.
    public nonisolated var manifest: Manifest { model.manifest }
    /// Of all its files.
    public nonisolated var sizeBytes: Int { model.bundle.sizeBytes }

    /// Open a bundle.
    ///
    /// - Parameters:
    ///   - url: its folder or zip.
    ///   - engines: the app's.
    ///   - decoder: opens image files.
    /// - Throws: `BundleError`: it is corrupted. `EngineError`: it does not run here.
    public init(_ url: URL, engines: [EngineProvider], decoder: @escaping ImageDecoder) async throws {
        let clock = ContinuousClock()
        let start = clock.now
        model = try await Model.open(url, engines: engines, images: decoder)
        loadMs = (clock.now - start).milliseconds
    }

    /// Measure the bundle on a recorded input, after a few rounds that do not count.
    ///
    /// - Throws: `CancellationError`: the task was cancelled.
    public func measure(rounds: Int, warmUpRounds: Int = 3) throws -> Measurement {
        let workload = try Workload(model.bundle, engine: model.engine)
        let clock = ContinuousClock()
        var times: [Double] = []
        for round in 0..<warmUpRounds + rounds {
            try Task.checkCancellation()
            let time = try clock.measure { try workload.run() }
            if round >= warmUpRounds { times.append(time.milliseconds) }
        }
        return Measurement(program: workload.program, times: times, footprintBytes: MemoryFootprint.bytes())
    }
}
