// What EdgeExecuTorch uses of ExecuTorch's Swift API, for compilers on other systems: signatures of version 1.0's
// extension/apple/ExecuTorch, nothing behind them.
import Foundation

private func unavailable() -> Never { fatalError("ExecuTorch's Swift API runs on Apple's systems only") }

/// How a file gets into memory.
public enum ModuleLoadMode: Int {
    case file = 0
    case mmap
    case mmapUseMlock
    case mmapUseMlockIgnoreErrors
}

/// A type of a tensor's values.
public protocol Scalar {}

extension Float: Scalar {}
extension Int32: Scalar {}

/// What `Module.execute` takes.
public protocol ValueConvertible {
    func asValue() -> Value
}

/// A tensor of one type.
public final class Tensor<T: Scalar>: ValueConvertible {
    public convenience init(
        _ scalars: [T], shape: [Int] = [], strides: [Int] = [], dimensionOrder: [Int] = []
    ) { unavailable() }
    init() { unavailable() }
    public var shape: [Int] { unavailable() }
    public func scalars() -> [T] { unavailable() }
    public func asValue() -> Value { unavailable() }
}

/// What `Module.execute` gives.
public class Value: ValueConvertible {
    init() { unavailable() }
    public func tensor<T: Scalar>() -> Tensor<T>? { unavailable() }
    public func asValue() -> Value { self }
}

/// A program file and its methods.
public class Module {
    public init(filePath: String, loadMode: ModuleLoadMode) { unavailable() }
    public func load(_ method: String) throws { unavailable() }
    public func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] { unavailable() }
}
