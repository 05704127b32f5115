/// An engine that ends with `CancellationError` before a program where the calling task was cancelled.
final class StoppableEngine: Engine {
    private let engine: any Engine

    init(_ engine: any Engine) { self.engine = engine }

    var executedBy: String { engine.executedBy }

    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        try Task.checkCancellation()
        return try engine.run(program, inputs)
    }

    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        StoppableDecoder(try engine.openDecoder(bucket, spec))
    }
}

/// A decoder that does the same.
private final class StoppableDecoder: SpeechDecoder {
    private let decoder: any SpeechDecoder

    init(_ decoder: any SpeechDecoder) { self.decoder = decoder }

    var rows: Int { decoder.rows }
    var prefillTokens: Int { decoder.prefillTokens }

    func encode(_ mel: Tensor) throws {
        try Task.checkCancellation()
        try decoder.encode(mel)
    }

    func step(_ token: Int, position: Int, row: Int, mask: [Float]) throws -> DecoderOutput {
        try Task.checkCancellation()
        return try decoder.step(token, position: position, row: row, mask: mask)
    }

    func prefill(
        _ tokens: [Int], position: Int, row: Int, mask: [Float], wanted: (Int, Int)
    ) throws -> (DecoderOutput, DecoderOutput) {
        try Task.checkCancellation()
        return try decoder.prefill(tokens, position: position, row: row, mask: mask, wanted: wanted)
    }
}
