import Foundation

/// How large the files of a bundle may be, by what the manifest says that they are.
enum FileSizes {
    private static let mebibyte = 1 << 20
    private static let vectorsFolder = "vectors/"
    /// Of a tokenizer's file, and of mel filters.
    private static let maxTableBytes = 64 * mebibyte
    /// Of an image or a recording among the vectors.
    private static let maxRawInputBytes = 128 * mebibyte
    /// Of a LiteRT or ONNX model: offsets in FlatBuffers and lengths in Protocol Buffers are 31 bits.
    private static let maxModelBytes = Int(Int32.max)
    /// Of a file that nothing refers to, as a licence.
    private static let maxOtherBytes = 256 * mebibyte

    private static let largeBytes = 64 * mebibyte
    private static let samples = 64
    private static let sampleBytes = 4096
    /// So many samples of zeros are no model's: what was pruned has other numbers beside it.
    private static let mostEmptySamples = 60

    /// Refuse a large file that is mostly holes, before its zeros are hashed: nothing was ever written there.
    ///
    /// Samples of the file are looked at, evenly spread.
    static func refuseHoles(_ bytes: Data, _ name: String) throws {
        guard bytes.count >= largeBytes else { return }
        let distance = (bytes.count - sampleBytes) / (samples - 1)
        let empty = (0..<samples).filter { sample in
            bytes.dropFirst(sample * distance).prefix(sampleBytes).allSatisfy { $0 == 0 }
        }
        guard empty.count <= mostEmptySamples else {
            throw BundleError(
                "\(shown(name)): most of its \(bytes.count) bytes were never written: download it again")
        }
    }

    /// Refuse a size that a file of its kind cannot have, before anything is read and hashed.
    static func check(_ manifest: Manifest) throws {
        var limits = [
            Manifest.casesFile: 16 * mebibyte, Manifest.tensorsFile: 1024 * mebibyte, "report.json": 64 * mebibyte,
        ]
        switch manifest.preprocessing {
        case .text(let text): if let tokenizer = text.tokenizer { limits[tokenizer] = maxTableBytes }
        case .audio(let audio): limits[audio.melFilters] = maxTableBytes
        case .imageText(let both): if let tokenizer = both.text.tokenizer { limits[tokenizer] = maxTableBytes }
        case .image: break
        }
        if case .transcription(let head) = manifest.postprocessing { limits[head.tokenizer] = maxTableBytes }
        let models = Set(manifest.programs.map(\.file))
        for (name, entry) in manifest.files {
            let isModel = models.contains(name)
            let hasAnySize = isModel || manifest.target == .coreml || manifest.target == .onnx
            let has31Bits = isModel && (manifest.target == .litert || manifest.target == .onnx)
            let standard =
                name.hasPrefix(vectorsFolder)
                ? maxRawInputBytes : has31Bits ? maxModelBytes : hasAnySize ? Int.max : maxOtherBytes
            let limit = limits[name] ?? standard
            guard entry.size <= limit else {
                throw BundleError("\(shown(name)): expected at most \(limit) bytes, found \(entry.size)")
            }
        }
    }
}
