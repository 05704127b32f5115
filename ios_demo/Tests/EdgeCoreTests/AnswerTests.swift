import XCTest

@testable import EdgeFormer

final class AnswerTests: XCTestCase {
    func testScores() throws {
        for item in try Golden.cases("heads.json") {
            let logits = item["logits"].doubles.map { Float($0) }
            let labels = logits.indices.map(String.init)
            let activation = try XCTUnwrap(Activation(rawValue: item["activation"].text ?? ""))
            let outputs = ["logits": Tensor(logits, shape: [1, logits.count])]
            let run = {
                try Heads.classify(outputs, Classification(labels: labels, activation: activation), truncated: false)
            }
            if let error = item["error"].text {
                XCTAssertEqual(errorName { _ = try run() }, error)
                continue
            }
            let found = try run()
            XCTAssertEqual(found.entries.map { Int($0.label) }, item["order"].ints)
            for (entry, score) in zip(found.entries, item["scores"].doubles) {
                XCTAssertEqual(entry.score, score, accuracy: 1e-9)
            }
        }
    }

    func testLabelsOfACall() throws {
        for item in try Golden.cases("zero_shot.json") {
            let logits = item["logits"].items.map(\.doubles)
            let head = Classification(labels: item["labels"].items.compactMap(\.text), activation: .softmax)
            let options = try ZeroShotOptions(
                labels: logits.indices.map(String.init), multiLabel: item["multi_label"].flag)
            let found = try Heads.zeroShot(logits, head, options, truncated: false)
            XCTAssertEqual(found.entries.map { Int($0.label) }, item["order"].ints)
            for (entry, score) in zip(found.entries, item["scores"].doubles) {
                XCTAssertEqual(entry.score, score, accuracy: 1e-9)
            }
        }
    }

    func testWhatIsNoLabelOfACall() throws {
        XCTAssertEqual(errorName { _ = try ZeroShotOptions(labels: []) }, "InputError")
        XCTAssertEqual(errorName { _ = try ZeroShotOptions(labels: ["a", ""]) }, "InputError")
        XCTAssertEqual(errorName { _ = try ZeroShotOptions(labels: ["a"], template: "no place") }, "InputError")
        let head = Classification(labels: ["on", "off"], activation: .softmax)
        XCTAssertEqual(errorName { _ = try Heads.entailment(of: head) }, "InputError")
    }

    func testTextOfTokens() throws {
        let golden = try Golden.json("byte_level.json")
        let data = Data(try XCTUnwrap(golden["tokenizer"].text).utf8)
        let tokenizer = try SpeechTokenizer(data, end: golden["end"].int, file: "tokenizer.json")
        for item in try Golden.items(golden["cases"]) {
            let found = try tokenizer.text(item["ids"].ints)
            XCTAssertEqual(ExactString(found), ExactString(item["text"].text ?? "none"), "\(item["ids"].ints)")
        }
    }
}
