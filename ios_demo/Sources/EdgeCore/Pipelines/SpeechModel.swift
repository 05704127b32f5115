/// A speech bundle opened: its tokenizer, its mel filters, and the decoders of the lengths of audio in use.
///
/// Not for several threads at once: `Transcriber` takes turns.
final class SpeechModel {
    /// Decoders that are kept open: a recording's windows, its last window, and one more. Each holds caches of some MB.
    private static let openDecoders = 3
    /// Computed silence that a bucket has behind the audio. Where precomputed silence begins right behind the last word,
    /// decoders lose words or lose themselves; the whole window, which has none of it, needs no slack.
    private static let slackSeconds = 0.5

    let audio: AudioPreprocessing
    let spec: Transcription
    let tokenizer: SpeechTokenizer
    let engine: any Engine
    private let logMel: LogMel
    /// The last one is the one that was used last.
    private var decoders: [(bucket: AudioBucket, decoder: any SpeechDecoder)] = []

    /// Open the model of a bundle.
    ///
    /// - Throws: `BundleError`: its tokenizer or its filters are corrupted. `InputError`: the bundle is for another task.
    init(_ bundle: ModelBundle, _ engine: any Engine) throws {
        guard case .audio(let audio) = bundle.manifest.preprocessing,
            case .transcription(let spec) = bundle.manifest.postprocessing
        else {
            throw InputError("expected a bundle for speech-recognition, found \(bundle.manifest.task.rawValue)")
        }
        self.audio = audio
        self.spec = spec
        self.engine = engine
        tokenizer = try SpeechTokenizer(
            try bundle.readBytes(spec.tokenizer), end: spec.tokens.end, file: spec.tokenizer)
        logMel = try LogMel(audio, filters: try bundle.readBytes(audio.melFilters))
    }

    /// The smallest bucket that holds so many samples and `slackSeconds` of silence, or else the whole window.
    ///
    /// - Throws: `InputError`: they are more than a window's.
    func bucket(for samples: Int) throws -> AudioBucket {
        guard samples <= audio.windowSamples else {
            throw InputError("expected at most \(audio.windowSamples) samples of audio at once, found \(samples)")
        }
        let needed = samples + Int((Self.slackSeconds * Double(audio.sampleRate)).rounded(.toNearestOrEven))
        return spec.buckets.first { $0.positions * audio.samplesPerPosition >= needed }
            ?? spec.buckets[spec.buckets.count - 1]
    }

    /// The input of a bucket's `encode`, (1, nMels, 2 T), for samples (N).
    func mel(_ samples: [Float], _ bucket: AudioBucket) throws -> Tensor {
        try logMel.spectrogram(samples, frames: SpeechLayout.framesPerPosition * bucket.positions)
    }

    /// The open decoder of a bucket; the one that has not been used for longest makes room for it.
    func decoder(_ bucket: AudioBucket) throws -> any SpeechDecoder {
        if let index = decoders.firstIndex(where: { $0.bucket == bucket }) {
            decoders.append(decoders.remove(at: index))
        } else {
            if decoders.count >= Self.openDecoders { decoders.removeFirst() }
            decoders.append((bucket, try engine.openDecoder(bucket, spec)))
        }
        return decoders[decoders.count - 1].decoder
    }

    /// The text of a transcript's tokens, without spaces around it.
    func text(_ tokens: [Int]) throws -> String { try tokenizer.text(tokens).stripped() }

    /// The reference answer for samples that a bucket holds: greedy, until the end or the cache is full.
    func plainText(_ samples: [Float], _ bucket: AudioBucket) throws -> String {
        let decoder = try decoder(bucket)
        try decoder.encode(try mel(samples, bucket))
        var plain = TranscribeOptions()
        plain.timestamps = false
        let prompt = try Prompt(spec.tokens, plain, language: spec.tokens.referenceLanguage)
        let context = try Context(decoder, prompt)
        let search = Greedy(
            decoder: decoder,
            context: context,
            rules: LogitRules(spec, timestamps: false),
            tokens: spec.tokens,
            maxTokens: bucket.rows - 1 - context.position,
            stopsLoops: false
        )
        return try text(try search.follow().tokens)
    }
}
