import EdgeFormer
import ExecuTorch
import Foundation
import Synchronization

extension EngineProvider {
    /// ExecuTorch, on the processor.
    public static let executorch = EngineProvider(.executorch) { try ExecuTorchEngine.open($0) }
}

/// Runs an ExecuTorch bundle on the processor through XNNPACK: one method of a `.pte` per program, one at a time.
///
/// An app links ExecuTorch's backends with `-all_load`, or they do not register (ExecuTorch's documentation, "Linkage").
public final class ExecuTorchEngine: Engine {
    public let executedBy = "ExecuTorch (Swift)"
    private let checked: CheckedPrograms
    private let bundle: ModelBundle
    private let modules: Mutex<[String: Module]>

    private init(_ bundle: ModelBundle, _ rows: TableRows, _ modules: sending [String: Module]) {
        self.bundle = bundle
        checked = CheckedPrograms(bundle.manifest.programs, rows: rows)
        self.modules = Mutex(modules)
    }

    /// Map a bundle's files into memory and load their methods.
    ///
    /// - Throws: `EngineError`: ExecuTorch cannot load the model. `BundleError`: a file breaks a rule of BUNDLE.md.
    public static func open(_ bundle: ModelBundle) throws -> ExecuTorchEngine {
        let manifest = bundle.manifest
        guard manifest.target == .executorch else {
            throw EngineError("expected a bundle for executorch, found \(manifest.target.rawValue)")
        }
        let rows = try ModelFiles.check(bundle)
        return ExecuTorchEngine(bundle, rows, try load(bundle))
    }

    private static func load(_ bundle: ModelBundle) throws -> sending [String: Module] {
        var modules: [String: Module] = [:]
        for program in bundle.manifest.programs {
            let module = try modules[program.file] ?? Self.module(try bundle.url(program.file))
            modules[program.file] = module
            // Speech has dozens of methods, each with weights to pack: they load when they are first called.
            guard bundle.manifest.task != .speechRecognition else { continue }
            do {
                try module.load(program.entry)
            } catch {
                throw EngineError("ExecuTorch cannot load \(program.file): \(error.localizedDescription)")
            }
        }
        return modules
    }

    /// A file mapped into memory; its methods load as they are first called.
    fileprivate static func module(_ url: URL) -> Module { Module(filePath: url.path, loadMode: .mmap) }

    public func run(_ program: String, _ inputs: [String: EdgeFormer.Tensor]) throws -> [String: EdgeFormer.Tensor] {
        let spec = try checked.checkInputs(program, inputs)
        let outputs = try modules.withLock { modules in
            guard let module = modules[spec.file] else { throw EngineError("\(spec.file) is not loaded") }
            return try Self.execute(spec, inputs.mapValues(Self.value), module).compactMapValues(Self.tensor)
        }
        return try checked.checkOutputs(spec, outputs)
    }

    /// Programs with state share it only where their methods share memory, which ExecuTorch's Swift API cannot ask for: then
    /// `decode` alone is used, on a file that is loaded for this decoder.
    public func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        switch spec.state {
        case .host: return HostStateDecoder(self, bucket, spec)
        case .program:
            return ProgramStateDecoder(try ExecuTorchBucket(bundle, bucket), bucket, spec, sharesState: false)
        }
    }

    /// Run a method on values in the manifest's order; its outputs by name.
    fileprivate static func execute(
        _ spec: ProgramSpec, _ inputs: [String: any ValueConvertible], _ module: Module
    ) throws -> [String: Value] {
        let values: [Value]
        do {
            values = try module.execute(spec.entry, spec.inputs.compactMap { inputs[$0.name] })
        } catch {
            throw EngineError("ExecuTorch failed to run \(spec.name): \(error.localizedDescription)")
        }
        guard values.count == spec.outputs.count else {
            throw EngineError("\(spec.name): expected \(spec.outputs.count) outputs, found \(values.count)")
        }
        return Dictionary(zip(spec.outputs.map(\.name), values), uniquingKeysWith: { $1 })
    }

    fileprivate static func value(_ tensor: EdgeFormer.Tensor) -> any ValueConvertible {
        switch tensor.values {
        case .float32(let values): ExecuTorch.Tensor<Float>(values, shape: tensor.shape)
        case .int32(let values): ExecuTorch.Tensor<Int32>(values, shape: tensor.shape)
        case .uint8(let values): ExecuTorch.Tensor<Int32>(values.map(Int32.init), shape: tensor.shape)
        }
    }

    /// A copy of an output; nil where it is no tensor of a type that bundles have.
    fileprivate static func tensor(_ value: Value) -> EdgeFormer.Tensor? {
        if let floats: ExecuTorch.Tensor<Float> = value.tensor() {
            return EdgeFormer.Tensor(floats.scalars(), shape: floats.shape)
        }
        if let integers: ExecuTorch.Tensor<Int32> = value.tensor() {
            return EdgeFormer.Tensor(integers.scalars(), shape: integers.shape)
        }
        return nil
    }
}

/// A decoder's own load of its bucket's file, which holds its state. What encode gives stays in ExecuTorch's memory.
private final class ExecuTorchBucket: BucketPrograms {
    private let module: Module
    private let bucket: AudioBucket
    private let programs: [String: ProgramSpec]
    private var encoded: [String: Value] = [:]

    init(_ bundle: ModelBundle, _ bucket: AudioBucket) throws {
        let used = bundle.manifest.programs.filter { [bucket.encode, bucket.decode].contains($0.name) }
        guard let file = used.first?.file, used.count == 2, used[1].file == file else {
            throw EngineError("expected \(bucket.encode) and \(bucket.decode) in one file: convert the bundle again")
        }
        module = ExecuTorchEngine.module(try bundle.url(file))
        programs = Dictionary(used.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        self.bucket = bucket
    }

    func encodeAudio(_ mel: EdgeFormer.Tensor) throws {
        encoded = try ExecuTorchEngine.execute(
            try program(bucket.encode), ["mel": ExecuTorchEngine.value(mel)], module)
    }

    func run(_ name: String, _ steering: [String: EdgeFormer.Tensor]) throws -> [String: EdgeFormer.Tensor] {
        let inputs = steering.mapValues(ExecuTorchEngine.value).merging(encoded) { $1 }
        return try ExecuTorchEngine.execute(try program(name), inputs, module)
            .compactMapValues(ExecuTorchEngine.tensor)
    }

    private func program(_ name: String) throws -> ProgramSpec {
        guard let program = programs[name] else { throw InputError("unknown program '\(name)'") }
        return program
    }
}
