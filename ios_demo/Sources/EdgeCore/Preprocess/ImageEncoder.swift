/// An upright, opaque image with 8 bits for each of red, green and blue.
public struct Pixels: Equatable, Sendable {
    /// Columns.
    public let width: Int
    /// Rows.
    public let height: Int
    /// (height, width, 3), row by row from the top.
    public let rgb: [UInt8]

    /// Pixels of a decoded image.
    ///
    /// - Throws: `InputError`: no pixels, too many, or another number of bytes than the sides say.
    public init(width: Int, height: Int, rgb: [UInt8]) throws {
        try ImageEncoder.checkSize(width, height, "an image")
        guard rgb.count == 3 * width * height else {
            throw InputError("expected \(3 * width * height) bytes of pixels, found \(rgb.count)")
        }
        self.width = width
        self.height = height
        self.rgb = rgb
    }

    init(unchecked rgb: [UInt8], width: Int, height: Int) {
        (self.width, self.height, self.rgb) = (width, height, rgb)
    }
}

/// Turns pixels into a model's input: resize as Pillow does it, crop the center, normalise.
struct ImageEncoder: Sendable {
    static let maxPixels = 128_000_000
    private let spec: ImagePreprocessing
    /// What each 8-bit value of each channel becomes, in float32 operations as the reference's.
    private let table: [[Float]]

    init(_ spec: ImagePreprocessing) {
        self.spec = spec
        table = zip(spec.mean, spec.std).map { mean, std in
            (0..<256).map { (Float($0) / 255 - Float(mean)) / Float(std) }
        }
    }

    /// The model's input (1, 3, height, width).
    ///
    /// - Throws: `InputError`: the image would be too large once it is resized.
    func encode(_ pixels: Pixels) throws -> Tensor { normalised(planes(try resized(pixels))) }

    /// 8-bit values (1, 3, H, W), as vectors store them, to the model's input.
    func normalised(_ levels: [UInt8]) -> Tensor {
        let size = spec.height * spec.width
        var values = [Float](repeating: 0, count: 3 * size)
        for channel in 0..<3 {
            let row = table[channel]
            for index in channel * size..<(channel + 1) * size { values[index] = row[Int(levels[index])] }
        }
        return Tensor(values, shape: [1, 3, spec.height, spec.width])
    }

    static func checkSize(_ width: Int, _ height: Int, _ what: String) throws {
        guard width > 0, height > 0 else { throw InputError("\(what) is empty: \(width) x \(height) pixels") }
        guard width.multipliedReportingOverflow(by: height).partialValue <= maxPixels, max(width, height) <= maxPixels
        else {
            throw InputError(
                "\(what) has \(width) x \(height) pixels, above the limit of \(maxPixels / 1_000_000) million: resize it"
            )
        }
    }

    private func resized(_ pixels: Pixels) throws -> Pixels {
        let side = spec.resizeShortSide
        let (width, height) = (pixels.width, pixels.height)
        var size = (width: side, height: side)
        if spec.crop != .squash, width <= height {
            size.height = Int(Double(side * height) / Double(width))
        } else if spec.crop != .squash {
            size.width = Int(Double(side * width) / Double(height))
        }
        try Self.checkSize(size.width, size.height, "an image of \(width) x \(height) pixels, resized for this model,")
        return Resample.resize(pixels, width: size.width, height: size.height, spec.interpolation)
    }

    /// Of the pixels that are cropped, those at the left or the top.
    private func before(_ cropped: Int) -> Int {
        Int((Double(cropped) / 2).rounded(spec.crop == .centerFloor ? .down : .toNearestOrEven))
    }

    /// The center of (H, W, 3) as planes (3, height, width).
    private func planes(_ pixels: Pixels) -> [UInt8] {
        let left = before(pixels.width - spec.width)
        let top = before(pixels.height - spec.height)
        var levels = [UInt8](repeating: 0, count: 3 * spec.height * spec.width)
        for channel in 0..<3 {
            for y in 0..<spec.height {
                let source = ((top + y) * pixels.width + left) * 3 + channel
                let target = (channel * spec.height + y) * spec.width
                for x in 0..<spec.width { levels[target + x] = pixels.rgb[source + 3 * x] }
            }
        }
        return levels
    }
}
