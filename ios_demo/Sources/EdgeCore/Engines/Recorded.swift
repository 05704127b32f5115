/// Answers what a bundle's vectors have recorded, and refuses other inputs: for an app's unit tests, where no engine runs,
/// and for previews.
///
/// Of speech every recording is heard as the recorded one of its length, and `prefill` and `decode` give the recorded
/// logits by position, whatever the caches hold.
public final class RecordedEngine: Engine {
    public let executedBy = "recorded vectors"
    private let programs: [String: ProgramSpec]
    private let cases: [Case]
    private let buckets: [AudioBucket]
    private let restored: @Sendable (Tensor) -> Tensor

    /// - Throws: `BundleError`: the bundle has no vectors.
    public init(_ bundle: ModelBundle) throws {
        cases = try Vectors(bundle).cases
        programs = Dictionary(uniqueKeysWithValues: bundle.manifest.programs.map { ($0.name, $0) })
        if case .transcription(let spec) = bundle.manifest.postprocessing {
            buckets = spec.buckets
        } else {
            buckets = []
        }
        if let spec = bundle.manifest.preprocessing.pixels {
            let encoder = ImageEncoder(spec)
            restored = { tensor in
                if case .uint8(let levels) = tensor.values { encoder.normalised(levels) } else { tensor }
            }
        } else {
            restored = { $0 }
        }
    }

    public func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        if let bucket = buckets.first(where: { program == $0.prefill || program == $0.decode }) {
            return try speak(program, inputs, bucket)
        }
        let found = cases.first { recorded in
            recorded.program == program && (!buckets.isEmpty || recorded.inputs.mapValues(restored) == inputs)
        }
        guard let found else { throw EngineError("\(program): these inputs were not recorded") }
        return found.outputs.filter { $0.key != "logits" || buckets.isEmpty }
    }

    public func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        HostStateDecoder(self, bucket, spec)
    }

    private func speak(_ program: String, _ inputs: [String: Tensor], _ bucket: AudioBucket) throws -> [String: Tensor]
    {
        guard let recorded = cases.first(where: { $0.program == bucket.encode }), let spec = programs[program],
            case .transcript(_, let prompt, _) = recorded.expected, let logits = recorded.outputs["logits"]
        else {
            throw EngineError("\(program): not recorded")
        }
        var outputs = Dictionary(uniqueKeysWithValues: spec.outputs.map { ($0.name, Tensor(zerosOf: $0)) })
        let width = logits.shape[1]
        let position = inputs["position"].map { Int($0.doubles[0]) } ?? prompt.count - 1
        let row = min(position + 1 - prompt.count, logits.shape[0] - 1)
        let values = Array((logits.floats ?? [])[row * width..<(row + 1) * width])
        outputs["logits"] =
            program == bucket.prefill
            ? Tensor(values + values, shape: [2, width]) : Tensor(values, shape: [width])
        return outputs
    }
}
