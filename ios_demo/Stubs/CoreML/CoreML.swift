// What EdgeFormerCoreML uses of Apple's Core ML, for compilers on other systems: signatures from Apple's documentation, nothing
// behind them. The classes are not Sendable here, as most of them are not there: code that passes is right for both.
import Foundation

private func unavailable() -> Never { fatalError("Core ML runs on Apple's systems only") }

/// The processing units that a model may use.
public enum MLComputeUnits: Int, @unchecked Sendable {
    case cpuOnly = 0
    case cpuAndGPU = 1
    case all = 2
    case cpuAndNeuralEngine = 3
}

/// The settings of a model.
public class MLModelConfiguration {
    public init() {}
    public var computeUnits: MLComputeUnits = .all
    public var functionName: String?
}

/// A type of a multi-array's or a shaped array's values.
public protocol MLShapedArrayScalar {}

extension Float: MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar {}

/// An array with a shape, as Swift has it.
public struct MLShapedArray<Scalar: MLShapedArrayScalar> {
    public init(scalars: some Sequence<Scalar>, shape: [Int]) { unavailable() }
    public init(converting multiArray: MLMultiArray) { unavailable() }
    public var scalars: [Scalar] { unavailable() }
    public var shape: [Int] { unavailable() }
}

/// An array with a shape, as Core ML has it.
public class MLMultiArray {
    init() { unavailable() }
}

/// An input or output.
public class MLFeatureValue {
    public convenience init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) { unavailable() }
    init() { unavailable() }
    public var multiArrayValue: MLMultiArray? { unavailable() }
}

/// Inputs or outputs by name.
public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

/// Inputs by name.
public class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { unavailable() }
    public var featureNames: Set<String> { unavailable() }
    public func featureValue(for featureName: String) -> MLFeatureValue? { unavailable() }
}

/// The buffers that a model keeps from one prediction to the next.
@available(macOS 15.0, iOS 18.0, *)
public class MLState {
    init() { unavailable() }
}

/// A model.
public class MLModel {
    init() { unavailable() }
    public convenience init(contentsOf url: URL, configuration: MLModelConfiguration) throws { unavailable() }
    public class func compileModel(at modelURL: URL) async throws -> URL { unavailable() }
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { unavailable() }

    @available(macOS 15.0, iOS 18.0, *)
    public func makeState() -> MLState { unavailable() }

    @available(macOS 15.0, iOS 18.0, *)
    public func prediction(
        from inputFeatures: any MLFeatureProvider, using state: MLState
    ) throws -> any MLFeatureProvider { unavailable() }
}
