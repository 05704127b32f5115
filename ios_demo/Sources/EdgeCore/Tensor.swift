/// Values with a shape: dense and row-major, copied when they are changed.
public struct Tensor: Equatable, Sendable {
    /// The values, by type.
    public enum Values: Equatable, Sendable {
        /// 32-bit floats.
        case float32([Float])
        /// Signed 32-bit integers.
        case int32([Int32])
        /// Bytes.
        case uint8([UInt8])
    }

    /// The dimensions.
    public let shape: [Int]
    /// The values; their number is the product of the dimensions.
    public let values: Values

    /// A tensor of floats.
    public init(_ floats: [Float], shape: [Int]) {
        self.init(.float32(floats), shape: shape)
    }

    /// A tensor of integers.
    public init(_ integers: [Int32], shape: [Int]) {
        self.init(.int32(integers), shape: shape)
    }

    /// A tensor of any type. The number of values must be the product of the dimensions.
    public init(_ values: Values, shape: [Int]) {
        self.values = values
        self.shape = shape
        precondition(count == shape.reduce(1, *), "a tensor of shape \(shape) cannot have \(count) values")
    }

    /// The tensor of zeros that a specification asks for.
    public init(zerosOf spec: TensorSpec) {
        switch spec.dtype {
        case .float32: self.init([Float](repeating: 0, count: spec.count), shape: spec.shape)
        case .int32: self.init([Int32](repeating: 0, count: spec.count), shape: spec.shape)
        case .uint8: self.init(.uint8([UInt8](repeating: 0, count: spec.count)), shape: spec.shape)
        }
    }

    /// The type of the values.
    public var dtype: DType {
        switch values {
        case .float32: .float32
        case .int32: .int32
        case .uint8: .uint8
        }
    }

    /// The number of values.
    public var count: Int {
        switch values {
        case .float32(let values): values.count
        case .int32(let values): values.count
        case .uint8(let values): values.count
        }
    }

    /// The values as floats; nil where they are of another type.
    public var floats: [Float]? {
        if case .float32(let values) = values { values } else { nil }
    }

    /// The values as 64-bit floats, which hold each of them exactly.
    public var doubles: [Double] {
        switch values {
        case .float32(let values): values.map(Double.init)
        case .int32(let values): values.map(Double.init)
        case .uint8(let values): values.map(Double.init)
        }
    }

    /// Whether the tensor is what a specification asks for.
    public func matches(_ spec: TensorSpec) -> Bool { dtype == spec.dtype && shape == spec.shape }

    /// Type and shape, for messages.
    public var summary: String { "\(dtype.rawValue) \(shape)" }
}
