import Foundation

/// Reads safetensors files: a length, a JSON header with types, shapes and offsets, then the values, little-endian.
enum Safetensors {
    private static let maxHeaderBytes = 16 << 20

    /// The tensors of an untrusted file by name.
    ///
    /// - Throws: `BundleError`: the header and the values do not belong together, or a type that bundles do not have.
    static func parse(_ data: Data, file: String) throws -> [String: Tensor] {
        guard data.count >= 8 else { throw BundleError("\(file): not a safetensors file: too short") }
        let headerBytes = data.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard headerBytes <= UInt64(min(maxHeaderBytes, data.count - 8)) else {
            throw BundleError("\(file): not a safetensors file: its header is longer than the file")
        }
        let body = data.dropFirst(8 + Int(headerBytes))
        let header = try StrictJson.parse(
            data.dropFirst(8).prefix(Int(headerBytes)), file: file, maxBytes: maxHeaderBytes)
        guard case .object(let entries) = header else {
            throw BundleError("\(file): not a safetensors file: its header is no object")
        }
        var tensors: [String: Tensor] = [:]
        var covered = 0
        for (name, value) in zip(entries.keys, entries.values) where name != "__metadata__" {
            let entry = try Entry(value, path: "\(file): \(shown(name))")
            guard entry.end <= body.count else { throw BundleError("\(file): \(shown(name)) ends behind the file") }
            tensors[name] = entry.tensor(in: body)
            covered += entry.end - entry.begin
        }
        guard covered == body.count else {
            throw BundleError("\(file): expected \(covered) bytes of values, found \(body.count)")
        }
        return tensors
    }

    private struct Entry {
        let dtype: DType
        let shape: [Int]
        let begin: Int
        let end: Int

        init(_ value: JsonValue, path: String) throws {
            let record = try Record(value, at: path, keys: ["data_offsets", "dtype", "shape"])
            switch try record.text("dtype") {
            case "F32": dtype = .float32
            case "I32": dtype = .int32
            case "U8": dtype = .uint8
            case let other: throw BundleError("\(path): expected F32, I32 or U8, found \(shown(other))")
            }
            shape = try record.list("shape", count: 0...8) { try Record.integer($0, $1, 0...Int(Int32.max)) }
            let offsets = try record.list("data_offsets", count: 2...2) { try Record.integer($0, $1, 0...Int.max) }
            (begin, end) = (offsets[0], offsets[1])
            var bytes = dtype == .uint8 ? 1 : 4
            for side in shape {
                let (product, overflow) = bytes.multipliedReportingOverflow(by: side)
                guard !overflow else { throw BundleError("\(path): a shape that is too large") }
                bytes = product
            }
            guard begin <= end, end - begin == bytes else {
                throw BundleError("\(path): expected \(bytes) bytes, found \(begin) to \(end)")
            }
        }

        func tensor(in body: Data) -> Tensor {
            let bytes = body.dropFirst(begin).prefix(end - begin)
            switch dtype {
            case .uint8: return Tensor(.uint8([UInt8](bytes)), shape: shape)
            case .int32: return Tensor(.int32(words(bytes).map { Int32(bitPattern: $0) }), shape: shape)
            case .float32: return Tensor(.float32(words(bytes).map { Float(bitPattern: $0) }), shape: shape)
            }
        }

        private func words(_ bytes: Data) -> [UInt32] {
            bytes.withUnsafeBytes { raw in
                (0..<raw.count / 4).map {
                    UInt32(littleEndian: raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self))
                }
            }
        }
    }
}
