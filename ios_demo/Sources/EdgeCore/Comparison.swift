import Foundation

/// One case's result against its reference; nil: not comparable (another shape, NaN, or no result at all).
public struct Comparison: Equatable, Sendable {
    /// The largest absolute difference.
    public let maxAbs: Double?
    /// Between the result and the reference.
    public let cosine: Double?
    /// What `maxAbs` may be.
    public let tolerance: Double
    /// The result is within its tolerance.
    public let ok: Bool
    /// What the engine said where it gave no result, or what is known to be wrong; else nil.
    public let reason: String?

    init(maxAbs: Double?, cosine: Double?, tolerance: Double, ok: Bool, reason: String? = nil) {
        self.maxAbs = maxAbs
        self.cosine = cosine
        self.tolerance = tolerance
        self.ok = ok
        self.reason = reason
    }

    /// There is no result to compare.
    static func failed(_ tolerance: Double, reason: String? = nil) -> Comparison {
        Comparison(maxAbs: nil, cosine: nil, tolerance: tolerance, ok: false, reason: reason)
    }

    /// The same with a reason.
    func because(_ reason: String) -> Comparison {
        Comparison(maxAbs: maxAbs, cosine: cosine, tolerance: tolerance, ok: ok, reason: reason)
    }

    /// Compare values in the same order; NaN, infinity or another number of values are not comparable and not ok.
    static func of(_ found: [Double], _ reference: [Double], tolerance: Double) -> Comparison {
        guard found.count == reference.count, found.allSatisfy(\.isFinite) else { return failed(tolerance) }
        var (maxAbs, dot, norm, otherNorm) = (0.0, 0.0, 0.0, 0.0)
        for (a, b) in zip(found, reference) {
            maxAbs = max(maxAbs, abs(a - b))
            (dot, norm, otherNorm) = (dot + a * b, norm + a * a, otherNorm + b * b)
        }
        let norms = (norm * otherNorm).squareRoot()
        let cosine = norms > 0 ? min(1, max(-1, dot / norms)) : nil
        return Comparison(maxAbs: maxAbs, cosine: cosine, tolerance: tolerance, ok: maxAbs <= tolerance)
    }

    /// Compare two tensors; another shape is not comparable.
    static func of(_ found: Tensor?, _ reference: Tensor, tolerance: Double) -> Comparison {
        guard let found, found.shape == reference.shape else { return failed(tolerance) }
        return of(found.doubles, reference.doubles, tolerance: tolerance)
    }

    /// The worst comparison, with the smallest cosine of all of them; nil without any.
    static func worst(_ comparisons: [Comparison]) -> Comparison? {
        guard let worst = comparisons.max(by: { $0.badness < $1.badness }) else { return nil }
        return Comparison(
            maxAbs: worst.maxAbs, cosine: comparisons.compactMap(\.cosine).min(), tolerance: worst.tolerance,
            ok: worst.ok, reason: worst.reason)
    }

    /// Largest for the worst.
    private var badness: (Int, Double) {
        guard let maxAbs else { return (1, .infinity) }
        if tolerance == 0 { return (ok ? 0 : 1, maxAbs > 0 ? .infinity : 0) }
        return (ok ? 0 : 1, maxAbs / tolerance)
    }
}

/// For each output's name its largest absolute value over all cases: what a tolerance is a fraction of. Buckets of one
/// model share it. An input without meaning may have logits near 0, of which no format keeps a fraction.
struct Scales {
    /// Of an output's scale: a reference whose values are all below has no direction that a format could keep.
    private static let small = 0.1
    private var scales: [String: Double] = [:]

    init(_ outputs: [[String: [Double]]]) {
        for values in outputs {
            for (name, each) in values { scales[name] = max(scales[name] ?? 0, largest(each)) }
        }
    }

    /// What `tolerance`, a fraction, is of an output.
    func limit(_ name: String, _ tolerance: Double) -> Double { tolerance * (scales[name] ?? 0) }

    /// Compare within a fraction of the output's scale; beside a small reference a cosine says nothing: nil.
    func compare(_ name: String, _ found: [Double], _ reference: [Double], tolerance: Double) -> Comparison {
        let comparison = Comparison.of(found, reference, tolerance: limit(name, tolerance))
        guard largest(reference) < limit(name, Self.small) else { return comparison }
        return Comparison(
            maxAbs: comparison.maxAbs, cosine: nil, tolerance: comparison.tolerance, ok: comparison.ok,
            reason: comparison.reason)
    }
}

/// The largest absolute value.
private func largest(_ values: [Double]) -> Double { values.reduce(0) { max($0, abs($1)) } }
