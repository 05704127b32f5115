import Foundation

/// A tensor's type in MIL.
struct MilType: Equatable {
    let dtype: Int
    let shape: [Int]
    /// Whether it outlives a call.
    var isState = false
}

/// Reads types and constants of MIL, the program inside a Core ML package, and the file of weights beside it.
struct MilValues {
    // ValueType: a tensor, a list, a state.
    private static let tensor = 1
    private static let list = 2
    private static let state = 5
    private static let text = 2
    /// DataType: the manifest's name where a program's input or output may have it, the size in bits, and the file's own number.
    static let types: [Int: (name: String, bits: Int, stored: Int)] = [
        1: ("bool", 8, 0), 10: ("float16", 16, 1), 11: ("float32", 32, 2), 12: ("float64", 64, 0), 13: ("", 16, 5),
        21: ("int8", 8, 4), 22: ("int16", 16, 6), 23: ("int32", 32, 14), 24: ("int64", 64, 0), 25: ("", 4, 8),
        31: ("uint8", 8, 3), 32: ("uint16", 16, 7), 33: ("uint32", 32, 15), 34: ("uint64", 64, 0), 35: ("", 4, 11),
        36: ("", 2, 10), 37: ("", 1, 9), 38: ("", 6, 13), 39: ("", 3, 12),
    ]
    // A weight starts with 64 bytes of metadata: sentinel (4), data type (4), size (8) and offset (8) of the data.
    private static let metadataBytes = 64
    private static let sentinel = 0xDEAD_BEEF
    private static let weightsName = "@model_path/weights/weight.bin"

    /// The reader of the model's file.
    let file: Protobuf
    /// The file of weights; nil: there is none.
    let weights: Data?

    /// A tensor's type, or a state's; nil: a list, or a text.
    func type(
        _ range: Range<Int>, _ what: String, computed: Bool = true, inState: Bool = false
    ) throws -> MilType? {
        let message = try file.message(range, [1, 2, 3, 4, 5], what)
        guard message.numbers.count == 1 else { throw Broken("\(what) has \(message.numbers.count) types") }
        if message.has(Self.tensor) { return try tensorType(try message.part(Self.tensor), what, computed) }
        guard !inState else { throw Broken("\(what) is a state of no tensor") }
        if message.has(Self.state) {
            let wrapped = try file.message(try message.part(Self.state), [1], what).part(1)
            guard let inner = try type(wrapped, what, inState: true) else {
                throw Broken("\(what) is a state of no tensor")
            }
            return MilType(dtype: inner.dtype, shape: inner.shape, isState: true)
        }
        guard message.has(Self.list) else { throw Broken("\(what) is a tuple or a dictionary") }
        return nil
    }

    private func tensorType(_ range: Range<Int>, _ what: String, _ computed: Bool) throws -> MilType? {
        let message = try file.message(range, [1, 2, 3, 4], what)
        let sizes = try message.parts(3).map { dimension in
            let found = try file.message(dimension, [1, 2], what)
            guard found.has(1) else { throw Broken("\(what) has a size that is not static") }
            return try file.message(try found.part(1), [1], what).int(1)
        }
        guard try message.int(2) == sizes.count else {
            throw Broken("\(what) has \(sizes.count) sizes and states \(try message.int(2))")
        }
        let shape = try Limits.check(sizes, what, computed: computed)
        let dtype = try message.int(1)
        if dtype == Self.text { return nil }
        guard Self.types[dtype] != nil else { throw Broken("\(what) has the type \(dtype), which is no dense number") }
        return MilType(dtype: dtype, shape: shape)
    }

    /// Refuse a constant whose bytes are not there, or not as many as its type needs.
    func checkValue(_ range: Range<Int>, _ what: String, depth: Int = 0) throws {
        let message = try file.message(range, [1, 2, 3, 5], what)
        let kind = try type(try message.part(2), what, computed: false)
        guard message.has(3) != message.has(5) else { throw Broken("\(what) has its value nowhere, or in two places") }
        if message.has(5) {
            guard let kind else { throw Broken("\(what) lies in the file of weights and is no tensor") }
            return try checkBlob(try file.message(try message.part(5), [1, 2], what), kind, what)
        }
        let immediate = try file.message(try message.part(3), [1, 2, 3, 4], what)
        if let kind {
            try checkImmediate(try immediate.part(1), kind, what)
        } else if immediate.has(3) {
            guard depth <= 2 else { throw Broken("\(what) is a list of lists of lists") }
            for item in try file.message(try immediate.part(3), [1], what).parts(1) {
                try checkValue(item, what, depth: depth + 1)
            }
        } else if !immediate.has(1) {
            throw Broken("\(what) is no tensor, text or list")
        }
    }

    private func checkImmediate(_ range: Range<Int>, _ kind: MilType, _ what: String) throws {
        let tensor = try file.message(range, Set(1...7), what)
        guard tensor.numbers.count == 1, let field = tensor.numbers.first else {
            throw Broken("\(what) has its numbers in \(tensor.numbers.count) fields")
        }
        let inner = try file.message(try tensor.part(field), [1], what)
        let elements = Limits.elements(kind.shape)
        let found: Int
        var needed = elements
        switch field {
        case 1: found = try inner.parts(1).reduce(0) { $0 + $1.count } / 4
        case 2, 3, 5: found = try inner.parts(1).reduce(0) { $0 + file.countIntegers($1) }
        case 4: found = try inner.parts(1).count
        case 6: found = try inner.parts(1).reduce(0) { $0 + $1.count } / 8
        default:
            found = try inner.part(1).count
            needed = Limits.bytes(kind.shape, bits: Self.types[kind.dtype]?.bits ?? 0)
        }
        guard found == needed else {
            throw Broken("\(what) has \(found) numbers or bytes where its shape needs \(needed)")
        }
    }

    private func checkBlob(_ blob: Protobuf.Message, _ kind: MilType, _ what: String) throws {
        let (name, offset) = (try blob.text(1), try blob.int(2))
        guard name == Self.weightsName, let weights else {
            throw Broken("\(what) lies in \(shown(name)): expected \(Self.weightsName), and that there")
        }
        try Limits.check(offset, Self.metadataBytes, before: weights.count, "the metadata of \(what)")
        let metadata = FlatBuffer(weights.dropFirst(offset).prefix(Self.metadataBytes))
        let (size, begin) = (try metadata.number(8, 8), try metadata.number(16, 8))
        let needed = Limits.bytes(kind.shape, bits: Self.types[kind.dtype]?.bits ?? 0)
        guard try metadata.number(0, 4) == Self.sentinel, size == needed,
            try metadata.number(4, 4) == Self.types[kind.dtype]?.stored
        else {
            throw Broken("\(what) has \(size) bytes of another type where its type needs \(needed)")
        }
        try Limits.check(begin, size, before: weights.count, what)
    }
}
