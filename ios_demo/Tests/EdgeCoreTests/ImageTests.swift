import XCTest

@testable import EdgeFormer

final class ImageTests: XCTestCase {
    /// Equal bit for bit: pixels after resize and crop, and what normalising makes of each level.
    func testAsPillow() throws {
        let tensors = try Golden.tensors("image.safetensors")
        for (index, item) in try Golden.cases("image.json").enumerated() {
            let spec = try ManifestReader.image((item["preprocessing"], "preprocessing"))
            let image = try XCTUnwrap(tensors["\(index)/image"])
            let levels = try XCTUnwrap(tensors["\(index)/levels"])
            guard case .uint8(let rgb) = image.values, case .uint8(let expected) = levels.values else {
                return XCTFail("expected 8-bit images")
            }
            let encoder = ImageEncoder(spec)
            let found = try encoder.encode(try Pixels(width: image.shape[1], height: image.shape[0], rgb: rgb))
            XCTAssertEqual(found, encoder.normalised(expected), item["name"].text ?? "")
            try checkTable(spec, try XCTUnwrap(tensors["\(index)/table"]?.floats))
        }
    }

    private func checkTable(_ spec: ImagePreprocessing, _ table: [Float]) throws {
        let one = try ImagePreprocessing(
            height: 1, width: 256, resizeShortSide: 256, interpolation: .bilinear, crop: .squash, mean: spec.mean,
            std: spec.std)
        let levels = (0..<3).flatMap { _ in (0..<256).map(UInt8.init) }
        XCTAssertEqual(ImageEncoder(one).normalised(levels).floats, table)
    }

    func testSizesAreBounded() {
        XCTAssertEqual(errorName { _ = try Pixels(width: 0, height: 3, rgb: []) }, "InputError")
        XCTAssertEqual(errorName { _ = try Pixels(width: 2, height: 2, rgb: [0]) }, "InputError")
        XCTAssertEqual(errorName { _ = try Pixels(width: 1 << 40, height: 1 << 40, rgb: []) }, "InputError")
    }
}
