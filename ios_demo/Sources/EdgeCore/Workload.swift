import Foundation

/// What a benchmark runs of a bundle: a program on its largest recorded input, or of speech a recording, mel to text.
///
/// Not for several threads at once.
public final class Workload {
    /// The program that runs; of speech the one that starts, with all that follows it.
    public let program: String
    private let work: () throws -> Void

    /// The largest recorded input; of speech the audio in the middle of the recorded ones.
    ///
    /// - Throws: `BundleError`: the bundle has no vectors.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        let cases = try Vectors(bundle).cases
        if case .audio(let spec) = bundle.manifest.preprocessing {
            let recorded = cases[cases.count / 2]
            guard case .audio(let file, let count) = recorded.raw.form else {
                throw BundleError("\(Manifest.casesFile): expected a recording")
            }
            let bytes = try bundle.readBytes(file)
            let samples = try WavSource.recorded(bytes, sampleRate: spec.sampleRate, count: count, file: file)
            let model = try SpeechModel(bundle, engine)
            guard let bucket = model.spec.buckets.first(where: { $0.encode == recorded.program }) else {
                throw BundleError("\(Manifest.casesFile): expected a program that encodes, found \(recorded.program)")
            }
            program = recorded.program
            work = { _ = try model.plainText(samples, bucket) }
            return
        }
        let size = { (recorded: Case) in recorded.inputs.values.reduce(0) { $0 + $1.count } }
        let recorded = cases.max { size($0) < size($1) } ?? cases[0]
        var inputs = recorded.inputs
        if let spec = bundle.manifest.preprocessing.pixels {
            let encoder = ImageEncoder(spec)
            inputs = inputs.mapValues {
                if case .uint8(let levels) = $0.values { encoder.normalised(levels) } else { $0 }
            }
        }
        program = recorded.program
        work = { [inputs] in _ = try engine.run(recorded.program, inputs) }
    }

    /// Run it once. This blocks.
    ///
    /// - Throws: `EngineError`: the model failed.
    public func run() throws { try work() }
}
