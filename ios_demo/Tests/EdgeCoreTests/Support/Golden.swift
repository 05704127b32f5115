import Foundation
import XCTest

@testable import EdgeFormer

/// The golden files of the repository, which pytest and JUnit read too; tests/golden/README.md says what is in them.
enum Golden {
    /// EDGEFORMER_REPOSITORY, or where this file lies in a checkout.
    static let repository: URL = {
        if let stated = ProcessInfo.processInfo.environment["EDGEFORMER_REPOSITORY"] {
            return URL(fileURLWithPath: stated)
        }
        return (0..<5).reduce(URL(fileURLWithPath: #filePath)) { url, _ in url.deletingLastPathComponent() }
    }()

    static func url(_ name: String) -> URL { repository.appendingPathComponent("tests/golden/\(name)") }

    static func data(_ name: String) throws -> Data { try Data(contentsOf: url(name)) }

    static func json(_ name: String) throws -> JsonValue {
        try StrictJson.parse(try data(name), file: name, maxBytes: 64 << 20)
    }

    /// The cases of a file, at least one.
    static func cases(_ name: String) throws -> [JsonValue] { try items(try json(name)["cases"]) }

    /// The items of an array that has some: a loop over none would test nothing.
    static func items(_ value: JsonValue) throws -> [JsonValue] {
        guard !value.items.isEmpty else { throw InputError("a golden file without cases") }
        return value.items
    }

    static func tensors(_ name: String) throws -> [String: Tensor] {
        try Safetensors.parse(try data(name), file: name)
    }
}

/// How tests look into JSON that they trust.
extension JsonValue {
    subscript(key: String) -> JsonValue {
        guard case .object(let object) = self, let value = object[key] else { return .null }
        return value
    }

    subscript(index: Int) -> JsonValue { items[index] }

    var items: [JsonValue] { if case .array(let items) = self { items } else { [] } }

    var members: [(key: String, value: JsonValue)] {
        guard case .object(let object) = self else { return [] }
        return zip(object.keys, object.values).map { ($0, $1) }
    }

    var text: String? { if case .string(let text) = self { text } else { nil } }

    var int: Int { if case .integer(let value) = self { value } else { 0 } }

    var flag: Bool { if case .bool(let value) = self { value } else { false } }

    var isNull: Bool { if case .null = self { true } else { false } }

    var has: (String) -> Bool {
        { key in if case .object(let object) = self { object[key] != nil } else { false } }
    }

    /// A number, or a string that is the name of one ("NaN").
    var double: Double {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        case .string(let name): Double(name) ?? .nan
        default: .nan
        }
    }

    var ints: [Int] { items.map(\.int) }
    var doubles: [Double] { items.map(\.double) }
}

/// A temporary folder that is removed behind the work.
func withTemporaryFolder(_ work: (URL) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("edge-core-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try work(folder)
}

/// The members of a golden bundle's zip as a folder.
func unpack(_ name: String, into folder: URL) throws {
    let archive = try Archive(Golden.url(name))
    for member in archive.sizes.keys {
        let target = folder.appendingPathComponent(member)
        try FileManager.default.createDirectory(
            at: target.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(try archive.read(member)).write(to: target)
    }
}

/// The error's class as golden files name it.
func errorName(_ work: () throws -> Void) -> String? {
    do {
        try work()
        return nil
    } catch {
        return String(describing: type(of: error))
    }
}

/// The bytes that hexadecimal digits write.
func bytes(of hexadecimal: String) -> Data {
    let digits = hexadecimal.compactMap(\.hexDigitValue)
    return Data(stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) })
}
