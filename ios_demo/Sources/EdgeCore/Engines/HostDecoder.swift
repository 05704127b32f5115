/// A speech decoder whose self-attention cache is kept here: for every engine that runs programs on tensors.
public final class HostStateDecoder: SpeechDecoder {
    public let rows: Int
    public let prefillTokens: Int
    private let engine: any Engine
    private let bucket: AudioBucket
    private let spec: Transcription
    /// `self_k_<i>` [H, D, L] and `self_v_<i>` [H, L, D], flat.
    private var cache: [String: [Float]]
    private var cross: [String: Tensor]?

    /// Decode with the programs of a bucket, whose state is "host".
    public init(_ engine: any Engine, _ bucket: AudioBucket, _ spec: Transcription) {
        self.engine = engine
        self.bucket = bucket
        self.spec = spec
        rows = bucket.rows
        prefillTokens = spec.prefillTokens
        let zeros = [Float](repeating: 0, count: spec.heads * spec.headDim * bucket.rows)
        cache = Dictionary(
            uniqueKeysWithValues: SpeechLayout.cacheNames(layers: spec.layers, kind: "self").map { ($0, zeros) })
    }

    public func encode(_ mel: Tensor) throws {
        cross = try engine.run(bucket.encode, ["mel": mel])
    }

    public func step(_ token: Int, position: Int, row: Int, mask: [Float]) throws -> DecoderOutput {
        try DecoderInputs.check(row: row, count: 1, mask: mask, rows: rows)
        let steering = ["token": DecoderInputs.integers([token]), "position": DecoderInputs.integers([position])]
        let outputs = try run(bucket.decode, steering, mask)
        store(outputs, row: row, count: 1, of: 1)
        return try DecoderInputs.answers(outputs, count: 1)[0]
    }

    public func prefill(
        _ tokens: [Int], position: Int, row: Int, mask: [Float], wanted: (Int, Int)
    ) throws -> (DecoderOutput, DecoderOutput) {
        try DecoderInputs.check(tokens, wanted: wanted, size: prefillTokens)
        try DecoderInputs.check(row: row, count: tokens.count, mask: mask, rows: rows)
        var steering = DecoderInputs.padded(tokens, position: position, size: prefillTokens)
        steering["wanted"] = DecoderInputs.integers([wanted.0, wanted.1])
        let outputs = try run(bucket.prefill, steering, mask)
        store(outputs, row: row, count: tokens.count, of: prefillTokens)
        let answers = try DecoderInputs.answers(outputs, count: 2)
        return (answers[0], answers[1])
    }

    private func run(_ program: String, _ steering: [String: Tensor], _ mask: [Float]) throws -> [String: Tensor] {
        guard let cross else { throw DecoderInputs.deaf }
        let caches = cache.mapValues { DecoderInputs.floats($0) }
        let inputs = steering.merging(cross) { $1 }.merging(caches) { $1 }.merging(["mask": DecoderInputs.floats(mask)])
        { $1 }
        return try engine.run(program, inputs)
    }

    /// Write the first `count` of `size` new tokens, `new_k_<i>` [H, D, size] and `new_v_<i>` [H, size, D], into the rows.
    private func store(_ outputs: [String: Tensor], row: Int, count: Int, of size: Int) {
        for layer in 0..<spec.layers {
            guard let keys = outputs["new_k_\(layer)"]?.floats, let values = outputs["new_v_\(layer)"]?.floats else {
                continue
            }
            for line in 0..<spec.heads * spec.headDim {
                cache["self_k_\(layer)"]?.replaceSubrange(
                    line * rows + row..<line * rows + row + count, with: keys[line * size..<line * size + count])
            }
            for head in 0..<spec.heads {
                let (target, source) = ((head * rows + row) * spec.headDim, head * size * spec.headDim)
                cache["self_v_\(layer)"]?.replaceSubrange(
                    target..<target + count * spec.headDim, with: values[source..<source + count * spec.headDim])
            }
        }
    }
}
