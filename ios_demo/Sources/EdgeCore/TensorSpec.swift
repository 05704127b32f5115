/// The type of a tensor's values.
public enum DType: String, CaseIterable, Sendable {
    /// 32-bit floats.
    case float32
    /// Signed 32-bit integers.
    case int32
    /// Bytes; only in recorded vectors, never in programs.
    case uint8
}

/// What a program takes or gives: name, type and static shape of one tensor.
public struct TensorSpec: Equatable, Sendable {
    /// The name in the manifest.
    public let name: String
    /// The type of the values.
    public let dtype: DType
    /// The dimensions, row-major.
    public let shape: [Int]

    /// The number of values.
    public var count: Int { shape.reduce(1, *) }

    /// A description of one tensor.
    public init(name: String, dtype: DType, shape: [Int]) {
        self.name = name
        self.dtype = dtype
        self.shape = shape
    }
}
