/// The inputs and outputs of a speech bucket's programs, from the numbers in its manifest. BUNDLE.md has it in words.
///
/// Key: T positions computed from audio, S = T + tail, L slots of the self-attention cache, P tokens of a prefill, H heads,
/// D head dim, V vocabulary, A alignment heads. Caches are flat: keys [H, D, S or L], values [H, S or L, D].
enum SpeechLayout {
    static let framesPerPosition = 2

    /// One program's name and tensors.
    struct Program {
        let name: String
        let inputs: [TensorSpec]
        let outputs: [TensorSpec]
    }

    /// `<kind>_k_0`, `<kind>_v_0`, `<kind>_k_1`, ...: the names of one kind of cache ("cross", "self", "new").
    static func cacheNames(layers: Int, kind: String) -> [String] {
        (0..<layers).flatMap { ["\(kind)_k_\($0)", "\(kind)_v_\($0)"] }
    }

    /// `encode`, `prefill` and `decode` of a bucket, in this order.
    static func programs(of bucket: AudioBucket, in spec: Transcription, nMels: Int) -> [Program] {
        let mel = TensorSpec(name: "mel", dtype: .float32, shape: [1, nMels, framesPerPosition * bucket.positions])
        let cross = caches(spec, "cross", length: bucket.positions + bucket.tail)
        let manyNames = ["tokens", "positions", "rows"]
        return [
            Program(name: bucket.encode, inputs: [mel], outputs: cross),
            Program(
                name: bucket.prefill,
                inputs: steered(spec, bucket, manyNames, count: spec.prefillTokens, cross)
                    + [TensorSpec(name: "wanted", dtype: .int32, shape: [2])],
                outputs: answered(spec, bucket, logits: [2, spec.vocabSize], count: spec.prefillTokens)
            ),
            Program(
                name: bucket.decode,
                inputs: steered(spec, bucket, ["token", "position", "row"], count: 1, cross),
                outputs: answered(spec, bucket, logits: [spec.vocabSize], count: 1)
            ),
        ]
    }

    /// What prefill and decode take: tokens, positions and rows under their names, the mask, and the caches.
    private static func steered(
        _ spec: Transcription, _ bucket: AudioBucket, _ names: [String], count: Int, _ cross: [TensorSpec]
    ) -> [TensorSpec] {
        let steering = names.map { TensorSpec(name: $0, dtype: .int32, shape: [count]) }
        let mask = TensorSpec(name: "mask", dtype: .float32, shape: [bucket.rows])
        switch spec.state {
        case .program: return steering + [mask] + cross
        case .host: return steering.prefix(2) + [mask] + caches(spec, "self", length: bucket.rows) + cross
        }
    }

    /// What prefill and decode give: logits, alignment, and the rows that a host has to keep.
    private static func answered(
        _ spec: Transcription, _ bucket: AudioBucket, logits: [Int], count: Int
    ) -> [TensorSpec] {
        let answers = [
            TensorSpec(name: "logits", dtype: .float32, shape: logits),
            TensorSpec(
                name: "alignment", dtype: .float32, shape: [spec.alignmentHeads, bucket.positions + bucket.tail]),
        ]
        return spec.state == .host ? answers + caches(spec, "new", length: count) : answers
    }

    private static func caches(_ spec: Transcription, _ kind: String, length: Int) -> [TensorSpec] {
        let size = spec.heads * spec.headDim * length
        return cacheNames(layers: spec.layers, kind: kind).map { TensorSpec(name: $0, dtype: .float32, shape: [size]) }
    }
}
