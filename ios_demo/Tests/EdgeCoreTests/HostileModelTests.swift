import XCTest

@testable import EdgeFormer

final class HostileModelTests: XCTestCase {
    private let targets: [String: Target] = ["executorch": .executorch, "coreml": .coreml]

    func testModelFilesThatBreakARuleAreRefused() throws {
        var count = 0
        for item in try Golden.cases("hostile_models.json") {
            guard let target = targets[item["target"].text ?? ""] else { continue }
            XCTAssertEqual(
                errorName { try check(target, item, try files(item)) }, item["error"].text, item["name"].text ?? "")
            count += 1
        }
        XCTAssertGreaterThan(count, 100)
    }

    /// Whatever a file's bytes are, a reader of it ends, with an answer or with a refusal.
    func testChangedBytesEndInNothingElseThanARefusal() throws {
        var random = SplitMix(state: 1)
        for item in try Golden.cases("hostile_models.json") where item["error"].isNull {
            guard let target = targets[item["target"].text ?? ""] else { continue }
            let valid = try files(item)
            let name = try XCTUnwrap(valid.keys.sorted().first { !$0.hasSuffix("Manifest.json") })
            for _ in 0..<1000 {
                var changed = valid
                var bytes = try XCTUnwrap(valid[name])
                for _ in 0..<Int.random(in: 1...3, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
                }
                changed[name] = bytes
                let found = errorName { try check(target, item, changed) }
                XCTAssertTrue(found == nil || found == "BundleError", "\(name): \(found ?? "")")
            }
        }
    }

    private func files(_ item: JsonValue) throws -> [String: Data] {
        let members = item["files"].members.map { ($0.key, Data(base64Encoded: $0.value.text ?? "") ?? Data()) }
        return Dictionary(members, uniquingKeysWith: { $1 })
    }

    private func check(_ target: Target, _ item: JsonValue, _ files: [String: Data]) throws {
        let stated = item["program"]
        let (x, y) = (tensor("x", stated), tensor("y", stated))
        let file = stated["file"].text ?? ""
        let program = ProgramSpec(
            name: "main", file: file, entry: stated["entry"].text ?? "", inputs: [x], outputs: [y])
        let inside = files.keys.filter { $0.hasPrefix(file + "/") }.map { String($0.dropFirst(file.count + 1)) }
        let found = try ModelFiles.check(target, file, Set(inside), [program]) { name in
            guard let data = files[name] else { throw BundleError("no \(name)") }
            return data
        }
        let operators = item["operators"].members.map { ($0.key, $0.value.int) }
        try ModelFiles.compare(Dictionary(operators, uniquingKeysWith: { $1 }), found.operators)
    }

    private func tensor(_ name: String, _ stated: JsonValue) -> TensorSpec {
        TensorSpec(name: name, dtype: .float32, shape: stated[name].ints)
    }
}

/// A source of numbers that are the same in each run.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
