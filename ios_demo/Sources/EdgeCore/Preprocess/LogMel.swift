import Foundation

/// Log-mel spectrograms as Whisper was trained on them (Radford et al. 2022, section 2.2).
///
/// Only the frames that touch the audio are computed: those of the zeros behind it are constant.
struct LogMel: Sendable {
    static let tensorName = "mel_filters"
    private let spec: AudioPreprocessing
    private let window: [Double]
    private let fft: Fft
    /// Each band's first frequency and its weights from there on: the filters are nearly empty.
    private let bands: [(first: Int, weights: [Float])]

    /// Largest magnitudes of a window: outside of these it is far from what models were trained on, and from the level of a
    /// bundle's precomputed silence.
    private static let usualPeaks: ClosedRange<Float> = 0.05...1
    /// What such a window gets.
    private static let leveledPeak = 0.5

    /// Samples (N) of one window, amplified or attenuated where they are far too quiet or too loud.
    static func leveled(_ samples: [Float]) -> [Float] {
        let peak = samples.reduce(0) { max($0, abs($1)) }
        guard peak.isFinite, peak > 0, !usualPeaks.contains(peak) else { return samples }
        let gain = Float(leveledPeak / Double(peak))
        return samples.map { $0 * gain }
    }

    /// A spectrogram with the filter bank of a bundle.
    ///
    /// - Parameters:
    ///   - spec: the manifest's preprocessing.
    ///   - filters: the bytes of its safetensors file, one tensor (nMels, nFft / 2 + 1).
    /// - Throws: `BundleError`: other tensors, or filters that are no filters.
    init(_ spec: AudioPreprocessing, filters: Data) throws {
        let tensors = try Safetensors.parse(filters, file: spec.melFilters)
        let bins = spec.nFft / 2 + 1
        guard tensors.count == 1, let tensor = tensors[Self.tensorName], tensor.shape == [spec.nMels, bins],
            let values = tensor.floats, values.allSatisfy({ $0.isFinite && $0 >= 0 })
        else {
            throw BundleError(
                "\(spec.melFilters): expected one tensor \(Self.tensorName), finite float32 [\(spec.nMels), \(bins)]")
        }
        guard Float(spec.logFloor) >= Float.leastNormalMagnitude, spec.nFft <= spec.windowSamples else {
            throw BundleError("expected a log floor that float32 can hold, and frames within the window")
        }
        self.spec = spec
        window = (0..<spec.nFft).map { 0.5 - 0.5 * cos(2 * Double.pi * Double($0) / Double(spec.nFft)) }
        fft = Fft(length: spec.nFft)
        bands = (0..<spec.nMels).map { band in
            let row = Array(values[band * bins..<(band + 1) * bins])
            let first = row.firstIndex { $0 > 0 } ?? 0
            return (first, Array(row[first...(row.lastIndex { $0 > 0 } ?? first)]))
        }
    }

    /// The first `frames` frames of the window that starts with the samples.
    ///
    /// - Parameters:
    ///   - samples: (N) at the spec's rate, N from 0 to the window's.
    ///   - frames: at most the window's, each `hopLength` samples.
    /// - Returns: (1, nMels, frames).
    /// - Throws: `InputError`: too many samples, or samples that are not finite.
    func spectrogram(_ samples: [Float], frames: Int) throws -> Tensor {
        guard samples.count <= spec.windowSamples else {
            throw InputError("expected at most \(spec.windowSamples) samples, found \(samples.count): cut the audio")
        }
        // A frame is centered on its time, so one that starts before the recording's end touches it.
        let touched = (samples.count + spec.nFft / 2 + spec.hopLength - 1) / spec.hopLength
        let sounding = min(spec.windowSamples / spec.hopLength, touched)
        let logs = bandLogs(padded(samples, sounding), sounding)
        let largest = logs.reduce(-Float.infinity) { $1.isNaN ? .nan : max($0, $1) }
        guard largest.isFinite else {
            throw InputError("the samples hold NaN, infinity or absurd values: expected -1 to 1 for full scale")
        }
        let least = Float(max(Double(largest) - spec.dynamicRange, log10(spec.logFloor)))
        var values = [Float](repeating: (least + 4) / 4, count: spec.nMels * frames)
        for band in 0..<spec.nMels {
            for frame in 0..<min(frames, sounding) {
                // The logarithm's range of about -4 to 4 becomes 0 to 2.
                values[band * frames + frame] = (max(logs[frame * spec.nMels + band], least) + 4) / 4
            }
        }
        return Tensor(values, shape: [1, spec.nMels, frames])
    }

    /// The samples that so many frames take, from half a frame before the window's first sample; mirrored at both ends.
    private func padded(_ samples: [Float], _ frames: Int) -> [Float] {
        let half = spec.nFft / 2
        var out = [Float](repeating: 0, count: (frames - 1) * spec.hopLength + spec.nFft)
        let kept = min(samples.count, out.count - half)
        out.replaceSubrange(half..<half + kept, with: samples[..<kept])
        for index in 0..<half { out[index] = out[2 * half - index] }
        let end = half + spec.windowSamples
        if end < out.count {
            for index in 0..<out.count - end { out[end + index] = out[end - 2 - index] }
        }
        return out
    }

    /// log10 of the power in each band, at least the floor's: (frames, nMels).
    private func bandLogs(_ padded: [Float], _ frames: Int) -> [Float] {
        let floor = Float(spec.logFloor)
        var logs: [Float] = []
        logs.reserveCapacity(frames * spec.nMels)
        for frame in 0..<frames {
            let start = frame * spec.hopLength
            let power = fft.power((0..<spec.nFft).map { Double(padded[start + $0]) * window[$0] }).map(Float.init)
            for band in bands {
                var sum: Float = 0
                for (offset, weight) in band.weights.enumerated() { sum += power[band.first + offset] * weight }
                logs.append(log10(sum < floor ? floor : sum))
            }
        }
        return logs
    }
}
