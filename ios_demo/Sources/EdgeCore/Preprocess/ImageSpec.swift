/// The filter of a resize. Both widen when they shrink (antialiasing).
public enum Interpolation: String, CaseIterable, Sendable {
    /// Keys' cubic with a = -1/2.
    case bicubic
    /// The triangle.
    case bilinear
}

/// How an image becomes a square.
public enum Crop: String, CaseIterable, Sendable {
    /// The short side is resized and the center kept.
    case center
    /// The same; a center between two pixels is the first one, not that at the even number.
    case centerFloor = "center-floor"
    /// Both sides are resized; the aspect ratio is lost.
    case squash
}

/// What happens to an image before the model: resize, crop, scale to 0..1, normalise. Sizes in pixels, channels RGB.
public struct ImagePreprocessing: Equatable, Sendable {
    /// Rows of the model's input.
    public let height: Int
    /// Columns of the model's input.
    public let width: Int
    /// What the short side becomes, or both with `squash`.
    public let resizeShortSide: Int
    /// The filter.
    public let interpolation: Interpolation
    /// What is kept.
    public let crop: Crop
    /// Per channel, of values scaled to 0..1.
    public let mean: [Double]
    /// Per channel, of values scaled to 0..1.
    public let std: [Double]

    init(
        height: Int, width: Int, resizeShortSide: Int, interpolation: Interpolation, crop: Crop, mean: [Double],
        std: [Double]
    ) throws {
        guard resizeShortSide >= max(height, width) else {
            throw BundleError(
                "image: expected height and width of at most \(resizeShortSide), found \(height) and \(width)")
        }
        self.height = height
        self.width = width
        self.resizeShortSide = resizeShortSide
        self.interpolation = interpolation
        self.crop = crop
        self.mean = mean
        self.std = std
    }
}
