import CoreGraphics
import EdgeFormer
import Foundation
import ImageIO

/// What a file may state: above today's phones, and refused before anything is decoded.
private let maxStatedPixels = 128_000_000
/// What is decoded: larger photos are reduced while they are, so that memory is bounded whatever the file states.
private let maxPixels = 16 << 20

/// An image file as upright, opaque pixels, as BUNDLE.md asks for: EXIF orientation applied, transparency over white.
///
/// - Throws: `InputError`: not an image, or more than one.
@Sendable
func decodeImage(_ file: Data) throws -> Pixels {
    guard let source = CGImageSourceCreateWithData(file as CFData, nil), CGImageSourceGetCount(source) > 0 else {
        throw InputError("expected an image file, found \(file.count) other bytes")
    }
    let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
    let width = properties?[kCGImagePropertyPixelWidth] as? Int ?? 0
    let height = properties?[kCGImagePropertyPixelHeight] as? Int ?? 0
    let (pixelCount, overflow) = width.multipliedReportingOverflow(by: height)
    guard !overflow, pixelCount <= maxStatedPixels else {
        throw InputError("expected an image of at most \(maxStatedPixels) pixels, found \(width) x \(height)")
    }
    // A thumbnail of full size is the image with its orientation applied.
    let reduction = pixelCount > maxPixels ? (Double(maxPixels) / Double(pixelCount)).squareRoot() : 1
    let options: [CFString: Any] = [
        kCGImageSourceCreateThumbnailFromImageAlways: true,
        kCGImageSourceCreateThumbnailWithTransform: true,
        kCGImageSourceThumbnailMaxPixelSize: Int(Double(max(width, height)) * reduction),
    ]
    guard let image = CGImageSourceCreateThumbnailAtIndex(source, 0, options as CFDictionary) else {
        throw InputError("the image is corrupted")
    }
    return try pixels(of: image)
}

/// The pixels of an image, laid over white. The values are the file's own: it is drawn in its own RGB space.
func pixels(of image: CGImage) throws -> Pixels {
    let (width, height) = (image.width, image.height)
    let own = image.colorSpace.flatMap { $0.model == .rgb ? $0 : nil }
    guard let space = own ?? CGColorSpace(name: CGColorSpace.sRGB),
        let context = CGContext(
            data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width, space: space,
            bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue),
        let data = context.data
    else {
        throw InputError("an image of \(width) x \(height) pixels cannot be drawn")
    }
    let bounds = CGRect(x: 0, y: 0, width: width, height: height)
    context.setFillColor(CGColor(gray: 1, alpha: 1))
    context.fill(bounds)
    context.draw(image, in: bounds)
    let rgba = UnsafeRawBufferPointer(start: data, count: 4 * width * height)
    let rgb = [UInt8](unsafeUninitializedCapacity: 3 * width * height) { out, count in
        for pixel in 0..<width * height {
            for channel in 0..<3 { out[3 * pixel + channel] = rgba[4 * pixel + channel] }
        }
        count = 3 * width * height
    }
    return try Pixels(width: width, height: height, rgb: rgb)
}
