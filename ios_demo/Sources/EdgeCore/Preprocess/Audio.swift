/// Audio as a file or a decoder gives it, block by block.
public protocol AudioSource: AnyObject {
    /// Frames per second; a frame is one sample of each channel.
    var sampleRate: Int { get }
    /// Samples of one frame.
    var channels: Int { get }

    /// The next frames, at most `count`: their samples from -1 to 1, channel by channel in each frame; none at the end.
    ///
    /// - Throws: `InputError`: the audio is corrupted or cut short.
    func read(_ count: Int) throws -> [Float]
}

/// A recording as mono samples at one rate, in constant memory for any length. Not for several threads at once.
///
/// Channels are averaged, but where they cancel out the loudest one is taken.
public final class AudioReader {
    /// Of what `read` gives, in Hz: the model's.
    public let sampleRate: Int
    private let source: any AudioSource
    private var resampler: Resampler?
    private var pending: ArraySlice<Float> = []
    private var ended = false
    private var taken = 0
    private var channel: Int?

    /// Frames that are decoded at a time.
    private static let blockFrames = 16384
    /// Largest magnitude of a sample. Full scale is 1, but floats that hold the values of integers are often met.
    private static let loudest: Float = 4_294_967_296
    /// Of the channels' mean power: where their mean has less, they cancel out, as from a microphone of reversed poles.
    private static let cancelled = 0.01

    /// A reader of a source at a model's rate.
    ///
    /// - Throws: `InputError`: a rate below 1 kHz or above 768 kHz, or more than 64 channels.
    public init(_ source: any AudioSource, sampleRate: Int) throws {
        guard (1_000...768_000).contains(source.sampleRate) else {
            throw InputError("the audio has a sample rate of \(source.sampleRate) Hz: expected 1000 to 768000")
        }
        guard (1...64).contains(source.channels) else {
            throw InputError("the audio has \(source.channels) channels: expected 1 to 64")
        }
        (self.source, self.sampleRate) = (source, sampleRate)
        if source.sampleRate != sampleRate { resampler = Resampler(from: source.sampleRate, to: sampleRate) }
    }

    /// The next samples (n); n is below `count` only at the end of the audio.
    ///
    /// - Throws: `InputError`: the audio is corrupted or cut short, or holds NaN, infinity or absurd values.
    public func read(_ count: Int) throws -> [Float] {
        while pending.count < count, !ended {
            let mono = try mono(try source.read(Self.blockFrames))
            ended = mono.isEmpty
            pending += resampler?.next(mono, isLast: ended) ?? mono
        }
        defer { pending = pending.dropFirst(count) }
        return Array(pending.prefix(count))
    }

    private func mono(_ block: [Float]) throws -> [Float] {
        let channels = source.channels
        let frames = block.count / channels
        var mono = block
        if channels > 1 {
            mono = (0..<frames).map { frame in
                let samples = block[frame * channels..<(frame + 1) * channels]
                return Float(samples.reduce(0.0) { $0 + Double($1) } / Double(channels))
            }
            if channel == nil, frames > 0 { channel = loudestIfCancelled(block, mono) }
            if let channel { mono = (0..<frames).map { block[$0 * channels + channel] } }
        }
        // Written so that NaN, which compares as false, is refused too.
        if let wrong = mono.firstIndex(where: { !(abs($0) <= Self.loudest) }) {
            throw InputError(
                "the audio holds \(mono[wrong]) at sample \(taken + wrong): expected finite samples, from -1 to 1")
        }
        taken += frames
        return mono
    }

    private func loudestIfCancelled(_ block: [Float], _ mean: [Float]) -> Int? {
        let square = { (sum: Double, value: Float) in sum + Double(value) * Double(value) }
        let channels = source.channels
        let powers = (0..<channels).map { channel in
            stride(from: channel, to: block.count, by: channels).reduce(0.0) { square($0, block[$1]) }
        }
        let isCancelled = mean.reduce(0.0, square) < Self.cancelled * powers.reduce(0, +) / Double(channels)
        return isCancelled ? powers.indices.max { powers[$0] < powers[$1] } : nil
    }
}
