import Foundation

/// What `Silence.speechRanges` does with pauses.
struct PauseOptions: Sendable {
    /// Shorter pauses stay in their range.
    var minPauseSeconds = 0.6
    /// Kept before and behind each range, for soft beginnings and endings.
    var marginSeconds = 0.25
}

/// Where a recording pauses, by its energy alone.
///
/// Levels are in decibels below full scale, each of 20 ms with its mean removed. What counts as a pause is relative to the
/// audio: a little above its own noise floor. Where there is no contrast between floor and top, nothing is a pause.
enum Silence {
    private static let frameSeconds = 0.02
    /// Below every microphone's noise and above that of 16-bit samples: what stays below is silence, unless it stands out
    /// from its own floor, as faint speech does.
    private static let silentLevel = -65.0
    /// Two steps of 16-bit samples: below, nothing was recorded.
    private static let faintestLevel = -85.0
    /// From the top of speech down to where it is lost; it counts where that is below `silentLevel`.
    private static let speechRange = 35.0
    private static let leastLevel = -100.0
    private static let floorPercentile = 10.0
    private static let minContrast = 10.0
    private static let margins = 3.0...10.0
    private static let cutSeconds = 0.1

    /// Whether nothing was recorded: no 20 ms reach -65 dBFS, or -85 and 10 dB above the floor.
    static func isSilent(_ samples: [Float], sampleRate: Int) -> Bool {
        least(levels(samples[...], sampleRate)) == .infinity
    }

    /// Where to cut in two, from `earliest` to `latest`: the middle of the longest pause there, or of the quietest 0.1 s.
    static func quietestCut(_ samples: [Float], earliest: Int, latest: Int, sampleRate: Int) -> Int {
        let size = frameSamples(sampleRate)
        let found = levels(samples[earliest..<latest], sampleRate)
        guard !found.isEmpty else { return (earliest + latest) / 2 }
        // The threshold is the whole recording's: a range without speech would have none of its own.
        let limit = threshold(levels(samples[...], sampleRate))
        var pause = longestRun(found.map { $0 < limit })
        if Double(pause.count) * frameSeconds < cutSeconds {
            let width = min(found.count, Int((cutSeconds / frameSeconds).rounded()))
            let energies = found.map { pow(10, $0 / 10) }
            let sums = (0...found.count - width).map { energies[$0..<$0 + width].reduce(0, +) }
            let quietest = sums.indices.min { sums[$0] < sums[$1] } ?? 0
            pause = quietest..<quietest + width
        }
        return min(latest, earliest + (pause.lowerBound + pause.upperBound) * size / 2)
    }

    /// The parts of a recording between its long pauses, in order; none where it is silent, all in one without contrast.
    static func speechRanges(_ samples: [Float], sampleRate: Int, _ options: PauseOptions = PauseOptions()) -> [Range<
        Int
    >] {
        let found = levels(samples[...], sampleRate)
        let limit = least(found)
        let size = frameSamples(sampleRate)
        let margin = Int(options.marginSeconds * Double(sampleRate))
        var frames: [ClosedRange<Int>] = []
        for index in found.indices where found[index] >= limit {
            if let last = frames.last, Double(index - last.upperBound - 1) < options.minPauseSeconds / frameSeconds {
                frames[frames.count - 1] = last.lowerBound...index
            } else {
                frames.append(index...index)
            }
        }
        return frames.map { range in
            max(0, range.lowerBound * size - margin)..<min(samples.count, (range.upperBound + 1) * size + margin)
        }
    }

    private static func frameSamples(_ sampleRate: Int) -> Int {
        max(1, Int((frameSeconds * Double(sampleRate)).rounded(.toNearestOrEven)))
    }

    /// The level of each 20 ms; the last may be shorter and is padded with its own mean.
    private static func levels(_ samples: ArraySlice<Float>, _ sampleRate: Int) -> [Double] {
        let size = frameSamples(sampleRate)
        return stride(from: samples.startIndex, to: samples.endIndex, by: size).map { start in
            let frame = samples[start..<min(start + size, samples.endIndex)]
            let mean = frame.reduce(0.0) { $0 + Double($1) } / Double(frame.count)
            let squares = frame.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) }
            return 10 * log10(max(squares / Double(size), pow(10, leastLevel / 10)))
        }
    }

    /// The level from which on a frame sounds; infinity where nothing was recorded.
    private static func least(_ levels: [Double]) -> Double {
        guard let top = levels.max() else { return .infinity }
        let limit = threshold(levels)
        let heard = limit == -.infinity ? silentLevel : faintestLevel
        return top < heard ? .infinity : max(limit, min(silentLevel, top - speechRange))
    }

    /// The level below which a frame is a pause; below all levels where the audio has no contrast.
    private static func threshold(_ levels: [Double]) -> Double {
        guard let top = levels.max() else { return -.infinity }
        let floor = percentile(levels, floorPercentile)
        guard top - floor >= minContrast else { return -.infinity }
        return floor + min(margins.upperBound, max(margins.lowerBound, (top - floor) / 4))
    }

    /// With linear interpolation between neighbours.
    private static func percentile(_ values: [Double], _ percent: Double) -> Double {
        let sorted = values.sorted()
        let place = percent / 100 * Double(sorted.count - 1)
        let below = Int(place)
        let above = min(below + 1, sorted.count - 1)
        return sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))
    }

    /// The longest run of quiet frames, empty without one. Of equals, the later: it leaves the shorter rest.
    private static func longestRun(_ quiet: [Bool]) -> Range<Int> {
        var (longest, start) = (0..<0, 0)
        for index in 0...quiet.count where index == quiet.count || !quiet[index] {
            if index > start, index - start >= longest.count { longest = start..<index }
            start = index + 1
        }
        return longest
    }
}
