import AVFoundation
import EdgeFormer

/// Audio of a file that the user chose.
enum Recording {
    /// A wav by the library's own reader, which is the same everywhere; all else by the system's decoders (m4a, mp3, caf).
    ///
    /// - Throws: `InputError`: it cannot be read, or has no audio that this device decodes.
    static func open(_ url: URL, sampleRate: Int) throws -> sending AudioReader {
        // What is opened stays readable behind this.
        let isScoped = url.startAccessingSecurityScopedResource()
        defer { if isScoped { url.stopAccessingSecurityScopedResource() } }
        guard let data = try? Data(contentsOf: url, options: .mappedIfSafe) else {
            throw InputError(String(localized: "error.audio.unreadable"))
        }
        if data.starts(with: Data("RIFF".utf8)) {
            return try AudioReader(try WavSource(data), sampleRate: sampleRate)
        }
        return try AudioReader(try SystemSource(url), sampleRate: sampleRate)
    }
}

/// What the system decodes, block by block.
private final class SystemSource: AudioSource {
    private let file: AVAudioFile

    init(_ url: URL) throws {
        guard let file = try? AVAudioFile(forReading: url) else {
            throw InputError(String(localized: "error.audio.unreadable"))
        }
        self.file = file
    }

    var sampleRate: Int { Int(file.processingFormat.sampleRate) }
    var channels: Int { Int(file.processingFormat.channelCount) }

    func read(_ count: Int) throws -> [Float] {
        if file.framePosition >= file.length { return [] }
        let block = AVAudioPCMBuffer(pcmFormat: file.processingFormat, frameCapacity: AVAudioFrameCount(count))
        guard let block, (try? file.read(into: block)) != nil, let samples = block.floatChannelData else {
            throw InputError(String(localized: "error.audio.unreadable"))
        }
        return (0..<Int(block.frameLength)).flatMap { frame in (0..<channels).map { samples[$0][frame] } }
    }
}
