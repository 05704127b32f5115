/// A bucket's programs that keep their own state, and what encode encoded, in whatever form the engine has it.
///
/// Each decoder has one of its own, so that several may be in use at once.
public protocol BucketPrograms: AnyObject {
    /// Run `encode` on mel (1, nMels, 2 T) and keep what it gives.
    func encodeAudio(_ mel: Tensor) throws

    /// Run `prefill` or `decode` on what it takes besides the tensors that `encode` gave; its outputs by name.
    func run(_ program: String, _ steering: [String: Tensor]) throws -> [String: Tensor]
}

/// A speech decoder whose self-attention cache lives inside the programs: they write the rows that they are told to.
public final class ProgramStateDecoder: SpeechDecoder {
    public let rows: Int
    public let prefillTokens: Int
    private let programs: any BucketPrograms
    private let bucket: AudioBucket
    private var hasHeard = false

    /// Decode with the programs of a bucket, whose state is "program".
    ///
    /// - Parameters:
    ///   - programs: run them, and keep their state.
    ///   - bucket: names them.
    ///   - spec: the manifest's.
    ///   - sharesState: whether `prefill` and `decode` see the same rows; otherwise `decode` alone is used, token by token.
    public init(
        _ programs: any BucketPrograms, _ bucket: AudioBucket, _ spec: Transcription, sharesState: Bool = true
    ) {
        self.programs = programs
        self.bucket = bucket
        rows = bucket.rows
        prefillTokens = sharesState ? spec.prefillTokens : 1
    }

    public func encode(_ mel: Tensor) throws {
        try programs.encodeAudio(mel)
        hasHeard = true
    }

    public func step(_ token: Int, position: Int, row: Int, mask: [Float]) throws -> DecoderOutput {
        try DecoderInputs.check(row: row, count: 1, mask: mask, rows: rows)
        let steering = [
            "token": DecoderInputs.integers([token]), "position": DecoderInputs.integers([position]),
            "row": DecoderInputs.integers([row]), "mask": DecoderInputs.floats(mask),
        ]
        return try DecoderInputs.answers(try run(bucket.decode, steering), count: 1)[0]
    }

    public func prefill(
        _ tokens: [Int], position: Int, row: Int, mask: [Float], wanted: (Int, Int)
    ) throws -> (DecoderOutput, DecoderOutput) {
        try DecoderInputs.check(tokens, wanted: wanted, size: prefillTokens)
        guard prefillTokens > 1 else {
            let output = try step(tokens[0], position: position, row: row, mask: mask)
            return (output, output)
        }
        try DecoderInputs.check(row: row, count: tokens.count, mask: mask, rows: rows)
        var steering = DecoderInputs.padded(tokens, position: position, size: prefillTokens)
        // Rows beyond the last one go nowhere, so padding corrupts no row of another hypothesis.
        steering["rows"] = DecoderInputs.integers((0..<prefillTokens).map { $0 < tokens.count ? row + $0 : rows })
        steering["wanted"] = DecoderInputs.integers([wanted.0, wanted.1])
        steering["mask"] = DecoderInputs.floats(mask)
        let answers = try DecoderInputs.answers(try run(bucket.prefill, steering), count: 2)
        return (answers[0], answers[1])
    }

    private func run(_ program: String, _ steering: [String: Tensor]) throws -> [String: Tensor] {
        guard hasHeard else { throw DecoderInputs.deaf }
        return try programs.run(program, steering)
    }
}
