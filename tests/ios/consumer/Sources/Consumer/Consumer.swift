import EdgeFormer
import EdgeFormerOnnx
import Foundation

/// `Consumer BUNDLE TEXT [LIBRARY]`: answers a text, with the bundle's recorded vectors or with ONNX Runtime's library.
@main
struct Consumer {
    static func main() async throws {
        let arguments = CommandLine.arguments
        let engine: EngineProvider = arguments.count > 3 ? .onnx(library: arguments[3]) : .recorded
        let model = try await Model.open(URL(fileURLWithPath: arguments[1]), engines: [engine])
        let result = try await model.classify(arguments[2])
        print(result.label, result.score, try await model.selfTest().ok)
        print(model.executedBy)
    }
}
