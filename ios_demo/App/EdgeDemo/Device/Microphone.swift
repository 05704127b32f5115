import AVFoundation
import EdgeFormer
import EdgeDemoKit

/// The microphone as blocks of mono samples at a model's rate.
@MainActor
final class Microphone {
    private let engine = AVAudioEngine()
    private var waiting: WaitingAudio?

    /// Ask for the microphone and listen until `stop`; audio, all that waits at a time.
    ///
    /// - Throws: `InputError`: no microphone, or it is not allowed.
    func start(sampleRate: Int) async throws -> AsyncMapSequence<AsyncStream<Void>, [Float]> {
        guard await AVAudioApplication.requestRecordPermission() else {
            throw InputError(String(localized: "error.microphone.denied"))
        }
        let session = AVAudioSession.sharedInstance()
        try session.setCategory(.record, mode: .measurement)
        try session.setActive(true)
        let input = engine.inputNode
        let source = input.outputFormat(forBus: 0)
        guard source.sampleRate > 0, let resampler = Resampler(from: source, to: Double(sampleRate)) else {
            throw InputError(String(localized: "error.microphone.missing"))
        }
        let waiting = WaitingAudio()
        Self.tap(input, source, resampler, waiting)
        waiting.onEnd { Task { @MainActor in self.stop() } }
        self.waiting = waiting
        do {
            try engine.start()
        } catch {
            stop()
            throw error
        }
        return waiting.blocks
    }

    /// Stop listening; the stream of blocks ends.
    func stop() {
        guard let waiting else { return }
        self.waiting = nil
        engine.inputNode.removeTap(onBus: 0)
        engine.stop()
        try? AVAudioSession.sharedInstance().setActive(false, options: .notifyOthersOnDeactivation)
        waiting.finish()
    }

    /// Outside the main actor: the system calls the block on its audio thread.
    private nonisolated static func tap(
        _ input: AVAudioInputNode, _ format: AVAudioFormat, _ resampler: Resampler, _ waiting: WaitingAudio
    ) {
        input.installTap(onBus: 0, bufferSize: 4096, format: format) { buffer, _ in
            waiting.append(resampler.resample(buffer))
        }
    }
}

/// Audio of one format as mono samples at another rate, block by block. Used on the audio thread alone.
private final class Resampler: @unchecked Sendable {
    private let converter: AVAudioConverter
    private let target: AVAudioFormat
    private var pending: AVAudioPCMBuffer?

    init?(from source: AVAudioFormat, to rate: Double) {
        guard
            let target = AVAudioFormat(
                commonFormat: .pcmFormatFloat32, sampleRate: rate, channels: 1, interleaved: false),
            let converter = AVAudioConverter(from: source, to: target)
        else { return nil }
        (self.converter, self.target) = (converter, target)
    }

    func resample(_ block: AVAudioPCMBuffer) -> [Float] {
        let ratio = target.sampleRate / block.format.sampleRate
        let capacity = AVAudioFrameCount(Double(block.frameLength) * ratio) + 64
        guard let out = AVAudioPCMBuffer(pcmFormat: target, frameCapacity: capacity) else { return [] }
        pending = block
        converter.convert(to: out, error: nil) { [self] _, status in
            defer { pending = nil }
            status.pointee = pending == nil ? .noDataNow : .haveData
            return pending
        }
        guard let samples = out.floatChannelData?[0] else { return [] }
        return Array(UnsafeBufferPointer(start: samples, count: Int(out.frameLength)))
    }
}
