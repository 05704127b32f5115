/// A model file breaks a rule of BUNDLE.md, "Model files"; whoever knows the file's name makes a `BundleError` of it.
struct Broken: Error {
    let message: String

    init(_ message: String) { self.message = message }
}

/// The limits that all formats share.
enum Limits {
    static let maxSize = Int(Int32.max)
    private static let maxRank = 8
    /// Of a tensor that is computed; constants are bounded by the file that holds their bytes.
    private static let maxElements = 1 << 26

    /// The number of a shape's elements; of more than an Int counts, `Int.max`.
    static func elements(_ shape: [Int]) -> Int {
        if shape.contains(0) { return 0 }
        return shape.reduce(1) { product, size in
            let (value, overflow) = product.multipliedReportingOverflow(by: size)
            return overflow ? Int.max : value
        }
    }

    /// How many bytes a shape's elements of so many bits take; nothing is as many as `Int.max`.
    static func bytes(_ shape: [Int], bits: Int) -> Int {
        let count = elements(shape)
        return count > Int.max / 64 ? Int.max : (count * bits + 7) / 8
    }

    /// The shape, if it is static and within the limits.
    @discardableResult
    static func check(_ shape: [Int], _ what: String, computed: Bool = true) throws -> [Int] {
        guard shape.count <= maxRank else {
            throw Broken("\(what) has \(shape.count) axes, at most \(maxRank) are allowed")
        }
        guard shape.allSatisfy({ (0...maxSize).contains($0) }) else {
            throw Broken("\(what) has the shape \(shape): expected sizes of 0 to 2^31 - 1")
        }
        guard !computed || elements(shape) <= maxElements else {
            throw Broken("\(what) has the shape \(shape): expected at most 2^26 elements")
        }
        return shape
    }

    /// Refuses bytes that do not lie before `end`.
    static func check(_ offset: Int, _ size: Int, before end: Int, _ what: String) throws {
        guard (0...end).contains(offset), size >= 0, size <= end - offset else {
            throw Broken("\(what) lies at \(offset) with \(size) bytes, of \(end)")
        }
    }
}
