import Foundation

/// Audio at another rate, block by block: a sinc under a Kaiser window (Smith, "Digital Audio Resampling").
///
/// Its band is that of soxr's high quality, and its delay is none; before and behind the audio there is silence.
struct Resampler {
    /// Zero crossings of the kernel on each side: with the window's shape, a stop band 100 dB down.
    private static let crossings = 74
    private static let kaiserBeta = 10.06
    /// The middle of the transition band, as a fraction of the lower rate's half: from .913 to 1.
    private static let cutoff = 0.9565
    /// Entries of the kernel for each zero crossing; between them it is interpolated, with an error below 2e-6.
    private static let entries = 512
    private static let last = Double(crossings * entries)

    /// One side of the kernel.
    private static let kernel: [Double] = (0..<crossings * entries + 2).map { entry in
        let x = Double(entry) / Double(entries)
        let inside = 1 - (x / Double(crossings)) * (x / Double(crossings))
        if inside <= 0 { return 0 }
        let angle = Double.pi * cutoff * x
        let sinc = entry == 0 ? 1 : sin(angle) / angle
        return cutoff * sinc * bessel(kaiserBeta * inside.squareRoot()) / bessel(kaiserBeta)
    }

    private let from: Int
    private let to: Int
    /// The kernel widens where the rate falls.
    private let scale: Double
    private let reach: Int
    private var samples: [Float] = []
    private var start = 0
    private var made = 0

    init(from: Int, to: Int) {
        (self.from, self.to) = (from, to)
        scale = min(1, Double(to) / Double(from))
        reach = Int(Double(Self.crossings) / scale) + 1
    }

    /// The samples that `more` completes; with `isLast` all that are left.
    mutating func next(_ more: [Float], isLast: Bool) -> [Float] {
        samples += more
        let end = start + samples.count
        let ready = isLast ? max(made, rounded(end)) : max(made, (end - reach) * to / from)
        let found = samples.withUnsafeBufferPointer { input in
            Self.kernel.withUnsafeBufferPointer { kernel in (made..<ready).map { sample($0, input, kernel) } }
        }
        made = ready
        let first = min(max(made * from / to - reach, start), end)
        samples.removeFirst(first - start)
        start = first
        return found
    }

    /// So many samples are the whole audio's.
    private func rounded(_ count: Int) -> Int { (2 * count * to + from) / (2 * from) }

    private func sample(
        _ index: Int, _ input: UnsafeBufferPointer<Float>, _ kernel: UnsafeBufferPointer<Double>
    ) -> Float {
        let step = scale * Double(Self.entries)
        let center = index * from / to - start
        let fraction = Double(index * from % to) / Double(to)
        var sum = 0.0
        func add(_ place: Int, _ at: Double) {
            let entry = Int(at)
            let weight = kernel[entry] + (kernel[entry + 1] - kernel[entry]) * (at - Double(entry))
            sum += Double(input[place]) * weight
        }
        var (at, place) = (fraction * step, center)
        while at < Self.last, place >= 0 {
            if place < input.count { add(place, at) }
            (at, place) = (at + step, place - 1)
        }
        (at, place) = ((1 - fraction) * step, center + 1)
        while at < Self.last, place < input.count {
            add(place, at)
            (at, place) = (at + step, place + 1)
        }
        return Float(sum * scale)
    }

    /// The modified Bessel function of order 0, by its series.
    private static func bessel(_ x: Double) -> Double {
        var (sum, term, n) = (1.0, 1.0, 1.0)
        while term > sum * 1e-17 {
            term *= (x / 2 / n) * (x / 2 / n)
            sum += term
            n += 1
        }
        return sum
    }
}
