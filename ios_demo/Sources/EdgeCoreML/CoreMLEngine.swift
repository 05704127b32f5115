#if canImport(CoreML)
    import CoreML
    import EdgeFormer
    import Foundation
    import Synchronization

    extension EngineProvider {
        /// Core ML, on the units that suit the bundle.
        public static let coreML = EngineProvider(.coreml) { try await CoreMLEngine.open($0) }
    }

    /// Runs a Core ML bundle: one function of a `.mlpackage` per program.
    ///
    /// States last from call to call in a decoder, each of which has its own; `run` starts every program with zeros. One
    /// prediction runs at a time.
    public final class CoreMLEngine: Engine {
        public let executedBy: String
        private let checked: CheckedPrograms
        private let functions: Mutex<[String: CoreMLFunction]>

        private init(_ programs: [ProgramSpec], _ rows: TableRows, _ functions: sending [String: CoreMLFunction]) {
            checked = CheckedPrograms(programs, rows: rows)
            executedBy = "Core ML, \(ProcessInfo.processInfo.operatingSystemVersionString)"
            self.functions = Mutex(functions)
        }

        /// Compile a bundle's packages, once per device and bundle, and load their functions.
        ///
        /// - Parameters:
        ///   - bundle: an open bundle for Core ML.
        ///   - computeUnits: what may run it; nil: as `units(for:)` says.
        ///   - warmUp: run every program once on zeros, so that the first answer is as fast as the others. Speech
        ///     bundles have dozens of programs, which are warmed up as they are first used.
        /// - Returns: an engine that is ready.
        /// - Throws: `EngineError`: Core ML cannot compile or load the model. `BundleError`: the package breaks a rule of
        ///   BUNDLE.md.
        public static func open(
            _ bundle: ModelBundle, computeUnits: MLComputeUnits? = nil, warmUp: Bool = true
        ) async throws -> CoreMLEngine {
            let manifest = bundle.manifest
            guard manifest.target == .coreml else {
                throw EngineError("expected a bundle for coreml, found \(manifest.target.rawValue)")
            }
            let rows = try ModelFiles.check(bundle)
            let compiled = try await CompiledModels.urls(of: bundle)
            let units = computeUnits ?? Self.units(for: manifest)
            let engine = CoreMLEngine(manifest.programs, rows, try load(manifest, compiled, units))
            if warmUp, manifest.task != .speechRecognition { try engine.warmUp(manifest.programs) }
            return engine
        }

        /// The units that suit a precision: the Neural Engine computes in 16-bit floats only, so a bundle in 32-bit floats,
        /// which asks for exactness, stays on the processor; all others may use both.
        public static func units(for manifest: Manifest) -> MLComputeUnits {
            manifest.recipe.weights == "float32" && manifest.recipe.activations == "float32"
                ? .cpuOnly : .cpuAndNeuralEngine
        }

        /// The functions by program.
        private static func load(
            _ manifest: Manifest, _ compiled: [String: URL], _ units: MLComputeUnits
        ) throws -> sending [String: CoreMLFunction] {
            // A package with a single function, as opposed to a multi-function one, refuses a function name.
            let hasSeveral = Set(manifest.programs.map(\.entry)).count > 1
            var functions: [String: CoreMLFunction] = [:]
            for program in manifest.programs {
                guard let url = compiled[program.file] else { throw EngineError("\(program.file) was not compiled") }
                let configuration = MLModelConfiguration()
                configuration.computeUnits = units
                if hasSeveral { configuration.functionName = program.entry }
                functions[program.name] = CoreMLFunction(program, url, configuration)
            }
            return functions
        }

        public func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
            let spec = try checked.checkInputs(program, inputs)
            let outputs = try functions.withLock { functions in
                try Self.function(functions, program).predict(inputs)
            }
            return try checked.checkOutputs(spec, outputs)
        }

        public func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
            switch spec.state {
            case .host: return HostStateDecoder(self, bucket, spec)
            case .program: return ProgramStateDecoder(CoreMLBucket(self, bucket), bucket, spec)
            }
        }

        private func warmUp(_ programs: [ProgramSpec]) throws {
            for program in programs {
                let zeros = program.inputs.map { ($0.name, Tensor(zerosOf: $0)) }
                _ = try run(program.name, Dictionary(zeros, uniquingKeysWith: { $1 }))
            }
        }

        private static func function(_ functions: [String: CoreMLFunction], _ name: String) throws -> CoreMLFunction {
            guard let function = functions[name] else { throw InputError("unknown program '\(name)'") }
            return function
        }

        /// Run some work with the bucket's functions, one prediction at a time.
        fileprivate func withFunction<Result: Sendable>(
            _ name: String, _ work: (CoreMLFunction) throws -> Result
        ) throws -> Result {
            try functions.withLock { try work(try Self.function($0, name)) }
        }
    }

    /// One function of a package, which is loaded when it is first called.
    private final class CoreMLFunction {
        let program: ProgramSpec
        private let url: URL
        private let configuration: MLModelConfiguration
        private var loaded: MLModel?

        init(_ program: ProgramSpec, _ url: URL, _ configuration: MLModelConfiguration) {
            (self.program, self.url, self.configuration) = (program, url, configuration)
        }

        /// States of zeros; functions with states of the same names take them too.
        func makeState() throws -> MLState { try model().makeState() }

        /// Run the function; without a state it starts with zeros, if it has any.
        func predict(_ inputs: [String: Tensor]) throws -> [String: Tensor] {
            let features = inputs.mapValues { MLFeatureValue($0) }
            let outputs = try predict(features, state: try makeState())
            return try tensors(outputs)
        }

        /// Run the function on a state that it changes, and on inputs that may be another function's outputs.
        func predict(_ features: [String: MLFeatureValue], state: MLState) throws -> [String: MLFeatureValue] {
            do {
                let provider = try MLDictionaryFeatureProvider(dictionary: features)
                let outputs = try model().prediction(from: provider, using: state)
                let found = program.outputs.compactMap { spec in
                    outputs.featureValue(for: spec.name).map { (spec.name, $0) }
                }
                return Dictionary(found, uniquingKeysWith: { $1 })
            } catch let error as EngineError {
                throw error
            } catch {
                throw EngineError("Core ML failed to run \(program.name): \(error.localizedDescription)")
            }
        }

        /// The outputs as the manifest declares them, whatever type of float the function gives.
        func tensors(_ outputs: [String: MLFeatureValue]) throws -> [String: Tensor] {
            var tensors: [String: Tensor] = [:]
            for spec in program.outputs {
                guard let array = outputs[spec.name]?.multiArrayValue else {
                    throw EngineError("\(program.name): the model gave no array \(spec.name): convert the bundle again")
                }
                switch spec.dtype {
                case .int32:
                    let shaped = MLShapedArray<Int32>(converting: array)
                    tensors[spec.name] = Tensor(shaped.scalars, shape: shaped.shape)
                case .float32, .uint8:
                    let shaped = MLShapedArray<Float>(converting: array)
                    tensors[spec.name] = Tensor(shaped.scalars, shape: shaped.shape)
                }
            }
            return tensors
        }

        private func model() throws -> MLModel {
            if let loaded { return loaded }
            do {
                let model = try MLModel(contentsOf: url, configuration: configuration)
                loaded = model
                return model
            } catch {
                throw EngineError("Core ML cannot load \(program.file): \(error.localizedDescription)")
            }
        }
    }

    /// A decoder's own state, and what encode encoded, which stays in Core ML's arrays.
    private final class CoreMLBucket: BucketPrograms {
        /// What lasts from call to call.
        private struct Memory {
            var state: MLState?
            var encoded: [String: MLFeatureValue] = [:]
        }

        private let engine: CoreMLEngine
        private let bucket: AudioBucket
        private var memory = Memory()

        init(_ engine: CoreMLEngine, _ bucket: AudioBucket) {
            self.engine = engine
            self.bucket = bucket
        }

        func encodeAudio(_ mel: Tensor) throws {
            try engine.withFunction(bucket.encode) { encode in
                memory.encoded = try encode.predict(["mel": MLFeatureValue(mel)], state: try encode.makeState())
            }
        }

        func run(_ program: String, _ steering: [String: Tensor]) throws -> [String: Tensor] {
            try engine.withFunction(program) { function in
                // Made from one function and given to both, as both have the same states.
                let state = try memory.state ?? function.makeState()
                memory.state = state
                let features = steering.mapValues { MLFeatureValue($0) }.merging(memory.encoded) { $1 }
                return try function.tensors(try function.predict(features, state: state))
            }
        }
    }

    extension MLFeatureValue {
        /// A tensor as Core ML takes it.
        fileprivate convenience init(_ tensor: Tensor) {
            switch tensor.values {
            case .float32(let values):
                self.init(shapedArray: MLShapedArray<Float>(scalars: values, shape: tensor.shape))
            case .int32(let values):
                self.init(shapedArray: MLShapedArray<Int32>(scalars: values, shape: tensor.shape))
            case .uint8(let values):
                self.init(shapedArray: MLShapedArray<Int32>(scalars: values.map(Int32.init), shape: tensor.shape))
            }
        }
    }
#endif
