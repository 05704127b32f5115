/// Transcribes audio at the model's rate, given whole or as it arrives. An actor: calls take turns, off the main thread.
///
/// Audio longer than the model's window is transcribed in windows that end in pauses; long silence is skipped.
public actor Transcriber {
    /// Of the samples that the model takes, in Hz.
    public nonisolated let sampleRate: Int
    private let model: SpeechModel
    private var stream: SpeechStream?

    /// Open the model of a bundle.
    ///
    /// - Throws: `BundleError`: its tokenizer or its filters are corrupted. `InputError`: the bundle is for another task.
    public init(_ bundle: ModelBundle, engine: any Engine) throws {
        model = try SpeechModel(bundle, engine)
        sampleRate = model.audio.sampleRate
    }

    /// Transcribe one recording.
    ///
    /// - Parameters:
    ///   - samples: (N) from -1 to 1, at `sampleRate`.
    ///   - options: how.
    ///   - progress: called after each window with the seconds of audio that are done.
    /// - Returns: all segments of the audio.
    /// - Throws: `InputError`: the audio cannot be used, or the model cannot do what the options ask for.
    ///   `EngineError`: the model failed. `CancellationError`: the task was cancelled.
    public func transcribe(
        _ samples: [Float], options: TranscribeOptions = TranscribeOptions(),
        progress: (@Sendable (Double) -> Void)? = nil
    ) throws -> Transcript {
        var taken = 0
        return try transcribe(options, progress) { count in
            defer { taken = min(samples.count, taken + count) }
            return samples.dropFirst(taken).prefix(count)
        }
    }

    /// Transcribe a recording of any length, window by window, such as `AudioReader(try WavSource(data), …)`.
    ///
    /// - Parameters:
    ///   - recording: at `sampleRate`.
    ///   - options: how.
    ///   - progress: called after each window with the seconds of audio that are done.
    /// - Returns: all segments of the audio.
    /// - Throws: as the other `transcribe`; `InputError` also: the recording is corrupted, or was opened at another rate.
    public func transcribe(
        _ recording: sending AudioReader, options: TranscribeOptions = TranscribeOptions(),
        progress: (@Sendable (Double) -> Void)? = nil
    ) throws -> Transcript {
        guard recording.sampleRate == sampleRate else {
            throw InputError("the recording was opened at \(recording.sampleRate) Hz: expected \(sampleRate)")
        }
        return try transcribe(options, progress) { try recording.read($0)[...] }
    }

    private func transcribe(
        _ options: TranscribeOptions, _ progress: (@Sendable (Double) -> Void)?,
        _ read: (Int) throws -> ArraySlice<Float>
    ) throws -> Transcript {
        let session = try SpeechSession(model, options)
        var buffer = AudioBuffer()
        var segments: [Segment] = []
        while true {
            try Task.checkCancellation()
            // One sample more than a window tells that there is more to come.
            let missing = model.audio.windowSamples + 1 - buffer.samples.count
            if missing > 0 { buffer.append(try read(missing)) }
            if buffer.samples.isEmpty { break }
            segments += try session.transcribeNext(&buffer)
            progress?(Double(buffer.start) / Double(sampleRate))
        }
        return session.transcript(segments, samples: buffer.end)
    }

    /// Begin a transcript of audio that is still arriving; another one that is open ends.
    ///
    /// - Throws: `InputError`: the model cannot do what the options ask for.
    public func openStream(
        options: TranscribeOptions = TranscribeOptions(), stream streamOptions: StreamOptions = StreamOptions()
    ) throws {
        stream = SpeechStream(model, try SpeechSession(model, options), streamOptions)
    }

    /// Take the next samples (N) of the open stream; what is new, often nothing.
    ///
    /// - Throws: `InputError`: no stream is open. `EngineError`: the model failed.
    public func feed(_ samples: [Float]) throws -> [StreamUpdate] {
        guard let stream else { throw InputError("no stream is open: call openStream first") }
        return try stream.feed(samples)
    }

    /// End the open stream: what is left becomes final. Without a stream there is nothing.
    ///
    /// - Throws: `EngineError`: the model failed.
    public func finishStream() throws -> (updates: [StreamUpdate], transcript: Transcript)? {
        guard let stream else { return nil }
        self.stream = nil
        let updates = try stream.finish()
        return (updates, stream.transcript)
    }
}
