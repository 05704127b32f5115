import COnnxRuntime
import EdgeFormer
import Foundation
import Synchronization

/// Runs an ONNX bundle with ONNX Runtime on the processor: on Linux, and on iOS releases that Core ML bundles do not reach.
///
/// A file is opened when its program first runs, and one program runs at a time.
public final class OnnxEngine: Engine {
    /// The shared library that Linux looks for, in the places that its loader knows.
    public static let library = "libonnxruntime.so.1"

    public let executedBy: String
    private let checked: CheckedPrograms
    private let bundle: ModelBundle
    private let threads: Int
    private let sessions = Mutex<[String: Session]>([:])

    /// Open a bundle for ONNX.
    ///
    /// - Parameters:
    ///   - bundle: an open bundle for ONNX.
    ///   - threads: that a program may use.
    ///   - library: the path of ONNX Runtime's shared library. Apple's systems link it, and ignore this.
    /// - Throws: `EngineError`: ONNX Runtime cannot be loaded, or cannot open the model. `BundleError`: the bundle breaks a
    ///   rule of BUNDLE.md.
    public init(_ bundle: ModelBundle, threads: Int = 2, library: String = OnnxEngine.library) throws {
        guard bundle.manifest.target == .onnx else {
            throw EngineError("expected a bundle for onnx, found \(bundle.manifest.target.rawValue)")
        }
        try Self.loading.withLock { _ in
            try check(ef_onnx_load(library), "ONNX Runtime cannot be loaded")
        }
        executedBy = "onnxruntime \(String(cString: ef_onnx_version()))"
        checked = CheckedPrograms(bundle.manifest.programs)
        self.bundle = bundle
        self.threads = threads
        // Each session has its own copy of the weights: those of a speech model are opened when they are first needed.
        guard bundle.manifest.task != .speechRecognition else { return }
        try sessions.withLock { sessions in
            for program in bundle.manifest.programs { _ = try session(program.file, &sessions) }
        }
    }

    public func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        let spec = try checked.checkInputs(program, inputs)
        let outputs = try sessions.withLock { sessions in
            let session = try session(spec.file, &sessions)
            let given = session.takesAnyLength ? withoutPadding(inputs) : inputs
            return try session.run(spec, given)
        }
        return try checked.checkOutputs(spec, outputs)
    }

    public func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder {
        guard spec.state == .host else { throw EngineError("an ONNX model keeps no state: convert the bundle again") }
        return HostStateDecoder(self, bucket, spec)
    }

    private static let loading = Mutex<Void>(())

    private func session(_ file: String, _ sessions: inout [String: Session]) throws -> Session {
        if let session = sessions[file] { return session }
        let opened = try Session(try bundle.url(file), file, threads: threads)
        sessions[file] = opened
        return opened
    }
}

extension EngineProvider {
    /// ONNX Runtime; see `OnnxEngine`.
    public static func onnx(threads: Int = 2, library: String = OnnxEngine.library) -> EngineProvider {
        EngineProvider(.onnx) { try OnnxEngine($0, threads: threads, library: library) }
    }
}

/// A model's file, open.
private final class Session: @unchecked Sendable {
    let takesAnyLength: Bool
    private let handle: UnsafeMutableRawPointer

    init(_ url: URL, _ file: String, threads: Int) throws {
        var (opened, anyLength): (UnsafeMutableRawPointer?, Int32) = (nil, 0)
        let failed = ef_onnx_open(url.path, Int32(threads), &opened, &anyLength)
        if failed != nil, let opened { ef_onnx_close(opened) }
        try check(failed, "\(file) cannot be opened")
        guard let opened else { throw EngineError("\(file) cannot be opened") }
        (handle, takesAnyLength) = (opened, anyLength != 0)
    }

    deinit { ef_onnx_close(handle) }

    /// Run the file's program; its outputs are written where they stay.
    func run(_ program: ProgramSpec, _ inputs: [String: Tensor]) throws -> [String: Tensor] {
        let given = try inputs.map { try Memory($0.key, copyOf: $0.value) }
        let written = try program.outputs.map { try Memory($0.name, copyOf: Tensor(zerosOf: $0)) }
        let failed = withExtendedLifetime((given, written)) {
            ef_onnx_run(handle, given.map(\.view), given.count, written.map(\.view), written.count)
        }
        try check(failed, "onnxruntime failed to run \(program.name)")
        return Dictionary(uniqueKeysWithValues: written.map { ($0.name, $0.tensor) })
    }
}

/// A tensor in memory that does not move.
private final class Memory {
    let name: String
    private let shape: [Int]
    private let type: Int32
    private let bytes: UnsafeMutableRawPointer
    private let label: UnsafeMutablePointer<CChar>
    private let sizes: UnsafeMutablePointer<Int64>

    init(_ name: String, copyOf tensor: Tensor) throws {
        let width = MemoryLayout<Float>.size
        switch tensor.values {
        case .float32: type = Int32(ef_onnx_float32)
        case .int32: type = Int32(ef_onnx_int32)
        case .uint8: throw EngineError("no program takes uint8")
        }
        self.name = name
        shape = tensor.shape
        bytes = .allocate(byteCount: max(width, width * tensor.count), alignment: 64)
        label = strdup(name)
        sizes = .allocate(capacity: max(1, shape.count))
        for (axis, size) in shape.enumerated() { sizes[axis] = Int64(size) }
        switch tensor.values {
        case .float32(let values): values.withUnsafeBytes(copy)
        case .int32(let values): values.withUnsafeBytes(copy)
        case .uint8: break
        }
    }

    private func copy(_ values: UnsafeRawBufferPointer) {
        if let first = values.baseAddress { bytes.copyMemory(from: first, byteCount: values.count) }
    }

    deinit {
        bytes.deallocate()
        sizes.deallocate()
        free(label)
    }

    var view: ef_onnx_tensor {
        let count = shape.reduce(1, *)
        return ef_onnx_tensor(
            name: label, type: type, data: bytes, bytes: count * MemoryLayout<Float>.size, shape: sizes,
            rank: shape.count)
    }

    private func pointer<Value>(_ type: Value.Type, _ count: Int) -> UnsafeMutablePointer<Value> {
        bytes.bindMemory(to: type, capacity: count)
    }

    var tensor: Tensor {
        let count = shape.reduce(1, *)
        return type == Int32(ef_onnx_int32)
            ? Tensor(Array(UnsafeBufferPointer(start: pointer(Int32.self, count), count: count)), shape: shape)
            : Tensor(Array(UnsafeBufferPointer(start: pointer(Float.self, count), count: count)), shape: shape)
    }
}

/// The inputs of a text, (1, S) each, up to the last position that its mask does not hide.
private func withoutPadding(_ inputs: [String: Tensor]) -> [String: Tensor] {
    guard case .int32(let mask)? = inputs["attention_mask"]?.values, let last = mask.lastIndex(where: { $0 != 0 })
    else { return inputs }
    let shortest = 2  // positions, of a file with a symbolic length
    return inputs.mapValues { tensor in
        guard case .int32(let values) = tensor.values, values.count == mask.count else { return tensor }
        let kept = max(last + 1, shortest)
        return Tensor(Array(values.prefix(kept)), shape: [1, kept])
    }
}

/// Refuses what a call of ONNX Runtime has said, and frees it.
private func check(_ said: UnsafeMutablePointer<CChar>?, _ what: String) throws {
    guard let said else { return }
    defer { free(said) }
    throw EngineError("\(what): \(String(cString: said).prefix(300))")
}
