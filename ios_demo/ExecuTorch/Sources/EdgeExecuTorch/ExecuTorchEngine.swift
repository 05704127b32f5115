import EdgeCore
import ExecuTorch
import Foundation
import Synchronization

/// Runs an ExecuTorch bundle on the processor through XNNPACK: one method of a `.pte` per program, one at a time.
///
/// An app links ExecuTorch's backends with `-all_load`, or they do not register (ExecuTorch's documentation, "Linkage").
public final class ExecuTorchEngine: Engine {
    public let executedBy = "ExecuTorch (Swift)"
    private let checked: CheckedPrograms
    private let modules: Mutex<[String: Module]>

    private init(_ programs: [ProgramSpec], _ modules: sending [String: Module]) {
        checked = CheckedPrograms(programs)
        self.modules = Mutex(modules)
    }

    /// Map a bundle's files into memory and load their methods.
    ///
    /// - Throws: `EngineError`: ExecuTorch cannot load the model.
    public static func open(_ bundle: ModelBundle) throws -> ExecuTorchEngine {
        let manifest = bundle.manifest
        guard manifest.target == .executorch else {
            throw EngineError("expected a bundle for executorch, found \(manifest.target.rawValue)")
        }
        return ExecuTorchEngine(manifest.programs, try load(bundle))
    }

    private static func load(_ bundle: ModelBundle) throws -> sending [String: Module] {
        var modules: [String: Module] = [:]
        for program in bundle.manifest.programs {
            do {
                let module =
                    try modules[program.file] ?? Module(filePath: try bundle.url(program.file).path, loadMode: .mmap)
                modules[program.file] = module
                // Speech has dozens of methods, each with weights to pack: they load when they are first called.
                if bundle.manifest.task != .speechRecognition { try module.load(program.entry) }
            } catch let error as BundleError {
                throw error
            } catch {
                throw EngineError("ExecuTorch cannot load \(program.file): \(error.localizedDescription)")
            }
        }
        return modules
    }

    public func run(_ program: String, _ inputs: [String: EdgeCore.Tensor]) throws -> [String: EdgeCore.Tensor] {
        let spec = try checked.checkInputs(program, inputs)
        let outputs = try modules.withLock { modules in try Self.execute(spec, inputs, modules) }
        return try checked.checkOutputs(spec, outputs)
    }

    /// Programs with state share it only where their methods share memory, which ExecuTorch's Swift API cannot ask for.
    public func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        guard spec.state == .host else {
            throw EngineError(
                "ExecuTorch's Swift API cannot share a decoder's state between methods: use the bundle for coreml")
        }
        return HostStateDecoder(self, bucket, spec)
    }

    private static func execute(
        _ spec: ProgramSpec, _ inputs: [String: EdgeCore.Tensor], _ modules: [String: Module]
    ) throws -> [String: EdgeCore.Tensor] {
        guard let module = modules[spec.file] else { throw EngineError("\(spec.file) is not loaded") }
        let values: [Value]
        do {
            values = try module.execute(spec.entry, spec.inputs.compactMap { inputs[$0.name].map(Self.value) })
        } catch {
            throw EngineError("ExecuTorch failed to run \(spec.name): \(error.localizedDescription)")
        }
        guard values.count == spec.outputs.count else {
            throw EngineError("\(spec.name): expected \(spec.outputs.count) outputs, found \(values.count)")
        }
        var outputs: [String: EdgeCore.Tensor] = [:]
        for (output, value) in zip(spec.outputs, values) { outputs[output.name] = tensor(value) }
        return outputs
    }

    private static func value(_ tensor: EdgeCore.Tensor) -> any ValueConvertible {
        switch tensor.values {
        case .float32(let values): ExecuTorch.Tensor<Float>(values, shape: tensor.shape)
        case .int32(let values): ExecuTorch.Tensor<Int32>(values, shape: tensor.shape)
        case .uint8(let values): ExecuTorch.Tensor<Int32>(values.map(Int32.init), shape: tensor.shape)
        }
    }

    /// A copy of an output; nil where it is no tensor of a type that bundles have.
    private static func tensor(_ value: Value) -> EdgeCore.Tensor? {
        if let floats: ExecuTorch.Tensor<Float> = value.tensor() {
            return EdgeCore.Tensor(floats.scalars(), shape: floats.shape)
        }
        if let integers: ExecuTorch.Tensor<Int32> = value.tensor() {
            return EdgeCore.Tensor(integers.scalars(), shape: integers.shape)
        }
        return nil
    }
}
