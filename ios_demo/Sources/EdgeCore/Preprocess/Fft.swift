import Foundation

/// The power spectrum of real frames of an even length, in 64-bit floats.
///
/// A frame of n samples is transformed as n / 2 complex ones (Press et al., "Numerical Recipes", section 12.3), these by the
/// mixed-radix algorithm of Cooley and Tukey (1965): Whisper's 400 samples are no power of two.
struct Fft: Sendable {
    private let half: Int
    private let factors: [Int]
    /// exp(-2 pi i k / (n / 2)), and exp(-2 pi i k / n).
    private let (roots, turns): ([Complex], [Complex])

    private struct Complex: Sendable {
        var re: Double
        var im: Double

        init(_ re: Double, _ im: Double) { (self.re, self.im) = (re, im) }

        static func + (a: Complex, b: Complex) -> Complex { Complex(a.re + b.re, a.im + b.im) }

        static func * (a: Complex, b: Complex) -> Complex {
            Complex(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)
        }
    }

    /// A transform of frames of `length` samples; the length is even.
    init(length: Int) {
        half = length / 2
        factors = Self.primeFactors(half)
        func circle(_ size: Int, _ count: Int) -> [Complex] {
            (0..<count).map { index in
                let angle = -2 * Double.pi * Double(index) / Double(size)
                return Complex(cos(angle), sin(angle))
            }
        }
        roots = circle(half, half)
        turns = circle(length, half + 1)
    }

    /// |DFT|^2 at the n / 2 + 1 frequencies from 0 to half of the sample rate.
    func power(_ frame: [Double]) -> [Double] {
        let packed = (0..<half).map { Complex(frame[2 * $0], frame[2 * $0 + 1]) }
        var spectrum = [Complex](repeating: Complex(0, 0), count: half)
        packed.withUnsafeBufferPointer { input in
            spectrum.withUnsafeMutableBufferPointer { output in
                transform(input, from: 0, stride: 1, output, at: 0, size: half, level: 0)
            }
        }
        return (0...half).map { index in
            let (a, b) = (spectrum[index % half], spectrum[(half - index) % half])
            // The transforms of the even and of the odd samples.
            let even = Complex((a.re + b.re) / 2, (a.im - b.im) / 2)
            let odd = Complex((a.im + b.im) / 2, (b.re - a.re) / 2)
            let value = even + turns[index] * odd
            return value.re * value.re + value.im * value.im
        }
    }

    /// The transform of every `stride`-th input value, `size` of them, into `size` places of the output.
    private func transform(
        _ input: UnsafeBufferPointer<Complex>, from start: Int, stride: Int,
        _ output: UnsafeMutableBufferPointer<Complex>, at place: Int, size: Int, level: Int
    ) {
        guard size > 1 else {
            output[place] = input[start]
            return
        }
        let radix = factors[level]
        let part = size / radix
        for index in 0..<radix {
            transform(
                input, from: start + index * stride, stride: stride * radix, output, at: place + index * part,
                size: part,
                level: level + 1)
        }
        withUnsafeTemporaryAllocation(of: Complex.self, capacity: radix) { column in
            for offset in 0..<part {
                for index in 0..<radix {
                    column[index] = output[place + index * part + offset]
                }
                for row in 0..<radix {
                    let frequency = offset + row * part
                    var sum = column[0]
                    for index in 1..<radix {
                        sum = sum + column[index] * roots[index * frequency * stride % half]
                    }
                    output[place + frequency] = sum
                }
            }
        }
    }

    private static func primeFactors(_ number: Int) -> [Int] {
        var (factors, rest, prime) = ([Int](), number, 2)
        while rest > 1 {
            while rest % prime == 0 {
                factors.append(prime)
                rest /= prime
            }
            prime += 1
        }
        return factors
    }
}
