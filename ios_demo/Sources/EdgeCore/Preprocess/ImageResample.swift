import Foundation

/// Pillow's resize of 8-bit images: a separable filter in fixed point, first along rows, then along columns.
///
/// The filter widens when it shrinks. Both passes round to 8 bits, with the same arithmetic as the reference's, so the
/// results are equal bit for bit.
enum Resample {
    /// Fraction bits of the weights: 32 less 8 of a pixel and 2 of the filter's overshoot.
    private static let fractionBits = 22

    /// An image of another size; an image that has it already stays as it is.
    static func resize(_ pixels: Pixels, width: Int, height: Int, _ interpolation: Interpolation) -> Pixels {
        var result = pixels
        if width != result.width {
            let weights = Weights(from: result.width, to: width, interpolation)
            let rgb = alongRows(result, weights, width: width)
            result = Pixels(unchecked: rgb, width: width, height: result.height)
        }
        if height != result.height {
            let weights = Weights(from: result.height, to: height, interpolation)
            let rgb = alongColumns(result, weights, height: height)
            result = Pixels(unchecked: rgb, width: width, height: height)
        }
        return result
    }

    /// The input pixels of each output pixel along one axis, and their weights in fixed point.
    private struct Weights {
        let size: Int
        var firsts: [Int] = []
        var counts: [Int] = []
        var values: [Int32] = []

        init(from input: Int, to output: Int, _ interpolation: Interpolation) {
            let scale = Double(input) / Double(output)
            let widening = max(scale, 1)
            let support = (interpolation == .bicubic ? 2.0 : 1.0) * widening
            size = Int(support.rounded(.up)) * 2 + 1
            for index in 0..<output {
                let center = (Double(index) + 0.5) * scale
                let first = max(Int(center - support + 0.5), 0)
                let count = min(Int(center + support + 0.5), input) - first
                var row = (0..<count).map { offset in
                    Self.filter((Double(offset + first) - center + 0.5) * (1 / widening), interpolation)
                }
                let sum = row.reduce(0, +)
                if sum != 0 { row = row.map { $0 / sum } }
                let one = Double(1 << fractionBits)
                firsts.append(first)
                counts.append(count)
                values += row.map { Int32($0 < 0 ? $0 * one - 0.5 : $0 * one + 0.5) }
                values += [Int32](repeating: 0, count: size - count)
            }
        }

        /// Keys' cubic with a = -1/2, or the triangle.
        private static func filter(_ position: Double, _ interpolation: Interpolation) -> Double {
            let x = abs(position)
            switch interpolation {
            case .bilinear: return x < 1 ? 1 - x : 0
            case .bicubic:
                let a = -0.5
                if x < 1 { return ((a + 2) * x - (a + 3)) * x * x + 1 }
                return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0
            }
        }
    }

    private static func alongRows(_ pixels: Pixels, _ weights: Weights, width: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 3 * width * pixels.height) { out, count in
            pixels.rgb.withUnsafeBufferPointer { rgb in
                weights.values.withUnsafeBufferPointer { values in
                    for x in 0..<width {
                        let row = values[x * weights.size..<x * weights.size + weights.counts[x]]
                        for y in 0..<pixels.height {
                            let source = (y * pixels.width + weights.firsts[x]) * 3
                            sum(rgb, source, step: 3, row, out, (y * width + x) * 3)
                        }
                    }
                }
            }
            count = 3 * width * pixels.height
        }
    }

    private static func alongColumns(_ pixels: Pixels, _ weights: Weights, height: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 3 * pixels.width * height) { out, count in
            pixels.rgb.withUnsafeBufferPointer { rgb in
                weights.values.withUnsafeBufferPointer { values in
                    for y in 0..<height {
                        let row = values[y * weights.size..<y * weights.size + weights.counts[y]]
                        for x in 0..<pixels.width {
                            let source = (weights.firsts[y] * pixels.width + x) * 3
                            sum(rgb, source, step: 3 * pixels.width, row, out, (y * pixels.width + x) * 3)
                        }
                    }
                }
            }
            count = 3 * pixels.width * height
        }
    }

    /// One output pixel: the weighted sums of its three channels, rounded and clipped.
    @inline(__always)
    private static func sum(
        _ rgb: UnsafeBufferPointer<UInt8>, _ source: Int, step: Int, _ weights: Slice<UnsafeBufferPointer<Int32>>,
        _ out: UnsafeMutableBufferPointer<UInt8>, _ target: Int
    ) {
        let half = Int32(1) << (fractionBits - 1)
        var (red, green, blue) = (half, half, half)
        var place = source
        for weight in weights {
            red &+= Int32(rgb[place]) &* weight
            green &+= Int32(rgb[place + 1]) &* weight
            blue &+= Int32(rgb[place + 2]) &* weight
            place += step
        }
        out[target] = UInt8(clamping: red >> Int32(fractionBits))
        out[target + 1] = UInt8(clamping: green >> Int32(fractionBits))
        out[target + 2] = UInt8(clamping: blue >> Int32(fractionBits))
    }
}
