import Foundation

/// Where a node's table has its ids, those that may be absent, and its lists of a number per axis.
private struct XnnpackNode {
    let inputs: [Int]
    let output: Int
    var optional: Int?
    var lists: [Int] = []

    static let fullyConnected = 2
    static let transpose = 5
    static let conv = 7
    static let resize = 9
    static let pad = 10
    static let depthwiseConv = 13
    static let reshape = 20

    /// XNodeUnion, by number. What is not here has no rule: pooling with indices, attention.
    static func of(_ kind: Int) -> XnnpackNode? {
        switch kind {
        case 3, 4, 6, 17...19, 22...24, 27, 28, 30, 40...47: XnnpackNode(inputs: [0], output: 1)
        case 1, 8, 12, 15, 16, 26, 31, 37: XnnpackNode(inputs: [0, 1], output: 2)
        case conv, depthwiseConv: XnnpackNode(inputs: [15, 16], output: 18, optional: 17)
        case 11, 14: XnnpackNode(inputs: [10], output: 11)
        case fullyConnected: XnnpackNode(inputs: [0, 1], output: 3, optional: 2)
        case transpose, reshape: XnnpackNode(inputs: [2], output: 3, lists: [1])
        case resize: XnnpackNode(inputs: [2], output: 3)
        case pad: XnnpackNode(inputs: [3], output: 4, lists: [0, 1])
        case 25, 29: XnnpackNode(inputs: [1], output: 2)
        case 32: XnnpackNode(inputs: [1, 2], output: 5)
        case 33: XnnpackNode(inputs: [1, 2, 3], output: 5)
        case 34: XnnpackNode(inputs: [1, 2, 3, 4], output: 5)
        case 35: XnnpackNode(inputs: [3], output: 4, lists: [1, 2])
        case 38: XnnpackNode(inputs: [1, 2, 3, 4, 7], output: 5)
        default: nil
        }
    }

    /// Fields of what it reads, the one that may be absent last.
    var reads: [Int] { inputs + (optional.map { [$0] } ?? []) }

    /// All fields of a node are numbers of four bytes but its lists.
    @Sendable
    static func layout(_ kind: Int) -> FlatShape? {
        of(kind).map { node in FlatShape((0..<20).map { node.lists.contains($0) ? .numbers(4) : .number(4) }) }
    }
}

/// Looks at the graph that ExecuTorch's delegate hands to XNNPACK, which takes its sizes and indices for true.
struct XnnpackGraph {
    // XNNHeader: four zeros, magic, its length (2), offset (4) and size (4) of the flatbuffer, offset (4) and size (8) of constants.
    private static let headerBytes = 30
    private static let noId = 0xFFFF_FFFF
    private static let noOffset = -1
    /// Flags of a value that the call hands over, one of them of each.
    private static let (externalInput, externalOutput) = (1, 2)
    /// A flag of a fully connected node: its weights are (inputs, outputs).
    private static let transposedWeights = 1
    /// XNN_MAX_TENSOR_DIMS.
    private static let maxRank = 6
    /// XNNDatatype: bits of the types that a constant may have, and the types that only computed values have.
    private static let constantBits = [
        1: 32, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8, 7: 32, 8: 4, 10: 4, 12: 32, 14: 16,
    ]
    private static let computedTypes: Set<Int> = [1, 2, 3, 4, 9, 11, 12, 14]

    /// What the graph may hold (its runtime_schema.fbs), slot by slot.
    private static let layout = FlatShape(
        .text,  // version
        .tables {
            FlatShape(
                .number(1), .union(XnnpackNode.layout), .number(4), .table { FlatShape(.number(4), .number(4)) })
        },
        .tables { FlatShape(.number(1), .union(valueLayout)) },
        .number(4),  // num_externs
        .numbers(4),  // input_ids
        .numbers(4),  // output_ids
        .tables { FlatShape(.numbers(1)) },  // constant_buffer
        .numbers(4),  // mem_buffer_sizes
        .tables { FlatShape(.number(8), .number(8), .text) }  // constant_data
    )
    private static let tensorLayout = FlatShape(
        .number(2), .number(4), .numbers(4), .number(4), .number(4), .number(4), .number(4), .number(2))

    @Sendable
    private static func valueLayout(_ kind: Int) -> FlatShape? {
        switch kind {
        case 1: tensorLayout
        case 2: FlatShape(.table { tensorLayout }, .number(1), .union(scalesLayout))
        default: nil
        }
    }

    @Sendable
    private static func scalesLayout(_ kind: Int) -> FlatShape? {
        switch kind {
        case 1: FlatShape(.numbers(4), .number(4), .number(4), .number(4))
        case 2: FlatShape(.number(4), .number(4))
        case 3: FlatShape(.number(4))
        case 4: FlatShape(.numbers(4), .number(4), .number(4), .numbers(2), .number(4), .number(4))
        default: nil
        }
    }

    /// Refuse a delegate's data that breaks a rule of BUNDLE.md.
    ///
    /// - Parameters:
    ///   - data: the delegate's segment.
    ///   - operands: how many the call has.
    ///   - namedSize: gives the size of named data by its key; refuses a key that there is none for.
    ///   - steps: of the file: a million calls may be of one delegate.
    /// - Throws: `Broken`: with the rule.
    static func check(_ data: Data, operands: Int, namedSize: (String) throws -> Int, steps: Steps) throws {
        guard data.count >= headerBytes, data.dropFirst(4).prefix(4).elementsEqual("XH00".utf8) else {
            throw Broken("XNNPACK's data does not begin with XH00")
        }
        let header = FlatBuffer(data)
        guard try header.number(8, 2) == headerBytes else { throw Broken("XNNPACK's header has another length") }
        let (begin, size) = (try header.number(10, 4), try header.number(14, 4))
        let constantBytes = try header.number(22, 8)
        try Limits.check(begin, size, before: data.count, "XNNPACK's graph")
        try Limits.check(try header.number(18, 4), constantBytes, before: data.count, "XNNPACK's constants")
        let table = try FlatBuffer(data.dropFirst(begin).prefix(size), steps).root("XN01", layout)
        let sizes = try table.tables(8).map { try constantSize($0, constantBytes, namedSize) }
        let externals = try table.uint(3)
        guard externals <= operands else {
            throw Broken("XNNPACK's graph has \(externals) operands, its call \(operands)")
        }
        var graph = XnnpackGraph(sizes: sizes, externals: externals)
        for value in try table.tables(2) { try graph.read(value) }
        let inputs = try table.numbers(4, bytes: 4)
        for number in try inputs + table.numbers(5, bytes: 4) where graph.shapes[number] == nil {
            throw Broken("XNNPACK's graph names an input or output that it has not")
        }
        var there = graph.constants.union(inputs)
        for each in try table.tables(1) {
            let kind = try each.byte(0)
            guard let node = XnnpackNode.of(kind), let fields = try each.table(1) else {
                throw Broken("XNNPACK's graph has a node of the kind \(kind), which is none that a reader knows")
            }
            try graph.checkNode(kind, node, fields)
            try checkOrder(kind, node, fields, &there)
            if [XnnpackNode.fullyConnected, XnnpackNode.conv, XnnpackNode.depthwiseConv].contains(kind) {
                try graph.checkWeights(kind, node, fields)
            }
        }
    }

    private static func constantSize(
        _ table: FlatTable, _ room: Int, _ namedSize: (String) throws -> Int
    ) throws -> Int {
        let (offset, size, key) = (try table.long(0, default: noOffset), try table.long(1), try table.text(2))
        if !key.isEmpty {
            guard (0...(try namedSize(key))).contains(size) else {
                throw Broken("a constant of XNNPACK is longer than its named data")
            }
        } else if size != 0 || !(noOffset...0).contains(offset) {
            try Limits.check(offset, size, before: room, "a constant of XNNPACK")
        }
        return size
    }

    private let sizes: [Int]
    private let externals: Int
    private var shapes: [Int: [Int]] = [:]
    private var constants: Set<Int> = []
    private var outside: Set<Int> = []

    private init(sizes: [Int], externals: Int) { (self.sizes, self.externals) = (sizes, externals) }

    private mutating func read(_ table: FlatTable) throws {
        let isQuantized = try table.byte(0) == 2
        guard let value = try table.table(1), let tensor = isQuantized ? try value.table(0) : value else {
            throw Broken("XNNPACK's graph has a value that is no tensor")
        }
        let dims = try tensor.numbers(2, bytes: 4)
        guard dims.count <= Self.maxRank, try tensor.uint(1) == dims.count else {
            throw Broken("a tensor of XNNPACK has \(dims.count) sizes and states \(try tensor.uint(1))")
        }
        let constant = try tensor.uint(3)
        let shape = try Limits.check(dims, "a tensor of XNNPACK", computed: constant == 0)
        try checkContent(try tensor.short(0), constant, shape)
        if isQuantized { try checkScales(value, shape) }
        let (external, flags) = (try tensor.uint(4), try tensor.uint(5))
        guard (external == Self.noId ? [0] : [Self.externalInput, Self.externalOutput]).contains(flags) else {
            throw Broken("a value of XNNPACK has the operand \(external) and the flags \(flags)")
        }
        if external != Self.noId {
            guard external < externals, constant == 0, outside.insert(external).inserted else {
                throw Broken("XNNPACK's graph has the operand \(external) of \(externals), or twice, or as a constant")
            }
        }
        let number = try tensor.uint(6)
        guard number != Self.noId, shapes.updateValue(shape, forKey: number) == nil else {
            throw Broken("XNNPACK's graph has the value \(number) twice")
        }
        if constant != 0 { constants.insert(number) }
    }

    private func checkContent(_ dtype: Int, _ constant: Int, _ shape: [Int]) throws {
        guard constant > 0 else {
            guard Self.computedTypes.contains(dtype) else { throw Broken("a value of XNNPACK has the type \(dtype)") }
            return
        }
        guard sizes.indices.contains(constant), let bits = Self.constantBits[dtype] else {
            throw Broken("a constant of XNNPACK has the number \(constant) of \(sizes.count) and the type \(dtype)")
        }
        guard Limits.bytes(shape, bits: bits) <= sizes[constant] else {
            throw Broken("a constant of XNNPACK has \(sizes[constant]) bytes for the shape \(shape)")
        }
    }

    /// Refuses scales that are fewer than the channels that they are for.
    private func checkScales(_ value: FlatTable, _ shape: [Int]) throws {
        let kind = try value.byte(1)
        guard let scales = try value.table(2) else { throw Broken("a tensor of XNNPACK has no scales") }
        if kind == 3, !(0...shape.count).contains(try scales.int(0)) {
            throw Broken("a tensor of XNNPACK has scales for more axes than it has")
        }
        guard kind == 1 || kind == 4 else { return }
        let axis = try scales.int(1)
        guard shape.indices.contains(axis) else {
            throw Broken("a tensor of XNNPACK has scales along the axis \(axis)")
        }
        var needed = shape[axis]
        if kind == 4 {
            let group = try scales.int(2)
            guard group >= 1, shape.count == 2, shape[1 - axis] % group == 0 else {
                throw Broken("a tensor of XNNPACK has groups of \(group)")
            }
            let (count, overflow) = needed.multipliedReportingOverflow(by: shape[1 - axis] / group)
            needed = overflow ? Int.max : count
        }
        let first = kind == 1 ? 2 : 4
        let (buffer, stated) = (try scales.uint(first), try scales.uint(first + 1))
        if buffer > 0 {
            guard sizes.indices.contains(buffer), stated * (kind == 1 ? 4 : 2) <= sizes[buffer] else {
                throw Broken("a tensor of XNNPACK has scales that are not there")
            }
        }
        let found = buffer > 0 ? stated : try scales.count(0, itemBytes: 4)
        guard found >= needed else { throw Broken("a tensor of XNNPACK has \(found) scales for \(needed) channels") }
    }

    private func checkNode(_ kind: Int, _ node: XnnpackNode, _ table: FlatTable) throws {
        for field in node.reads + [node.output] {
            let number = try table.uint(field)
            guard shapes[number] != nil || (field == node.optional && number == Self.noId) else {
                throw Broken("a node of XNNPACK reads or writes the value \(number), which its graph has not")
            }
        }
        guard let source = shapes[try table.uint(node.inputs[0])] else { return }
        if kind == XnnpackNode.resize {
            let (height, width) = (try table.uint(0), try table.uint(1))
            let isImage = source.count == 4 && (source + [height, width]).allSatisfy { $0 > 0 }
            guard isImage, shapes[try table.uint(node.output)] == [source[0], height, width, source[3]] else {
                throw Broken("a node of XNNPACK resizes \(source) to \(height) by \(width), and not to its result")
            }
        }
        guard !node.lists.isEmpty else { return }
        let lists = try node.lists.map { try table.numbers($0, bytes: 4) }
        guard lists.allSatisfy({ $0.count <= Self.maxRank }), try fits(kind, table, source, lists) else {
            throw Broken("a node of XNNPACK of the kind \(kind) does not go with its input of \(source)")
        }
    }

    private func fits(_ kind: Int, _ table: FlatTable, _ source: [Int], _ lists: [[Int]]) throws -> Bool {
        let isPerAxis = lists.allSatisfy { $0.count == source.count }
        switch kind {
        case XnnpackNode.pad:
            guard isPerAxis else { return false }
            try Limits.check(source.indices.map { lists[0][$0] + source[$0] + lists[1][$0] }, "a pad of XNNPACK")
            return true
        case XnnpackNode.transpose:
            return try table.uint(0) == lists[0].count && lists[0].sorted() == Array(source.indices)
        case XnnpackNode.reshape:
            return try table.uint(0) == Limits.check(lists[0], "a reshape of XNNPACK").count
        default:
            return try isPerAxis && table.uint(0) == source.count
                && source.indices.allSatisfy { lists[0][$0] + lists[1][$0] <= source[$0] }
        }
    }

    /// Refuses a node that reads what is not there yet, or writes what is: XNNPACK plans memory for each value once.
    private static func checkOrder(
        _ kind: Int, _ node: XnnpackNode, _ table: FlatTable, _ there: inout Set<Int>
    ) throws {
        let reads = try node.reads.map { try table.uint($0) }
        let writes = [try table.uint(node.output)]
        guard reads.allSatisfy({ $0 == noId || there.contains($0) }), there.isDisjoint(with: writes) else {
            let node = "a node of XNNPACK of the kind \(kind)"
            throw Broken("\(node) reads \(reads) before they are written, or writes \(writes) again")
        }
        there.formUnion(writes)
    }

    /// Refuses weights that are not as the node says: they are packed by its numbers when the model is loaded.
    private func checkWeights(_ kind: Int, _ node: XnnpackNode, _ table: FlatTable) throws {
        let numbers = try node.reads.map { try table.uint($0) }
        let (weights, bias) = (numbers[1], numbers[2])
        let (source, found) = (shapes[numbers[0]] ?? [], shapes[weights] ?? [])
        let isDense = kind == XnnpackNode.fullyConnected
        let channels =
            try isDense ? Self.denseOutputs(table, source, found) : Self.convOutputs(kind, table, source, found)
        guard let channels, constants.contains(weights) else {
            let node = "a node of XNNPACK of the kind \(kind)"
            throw Broken("\(node) has weights of \(found) for \(source), or computed ones")
        }
        guard bias == Self.noId || (constants.contains(bias) && shapes[bias] == [channels]) else {
            let shape = shapes[bias] ?? []
            throw Broken("a node of XNNPACK of the kind \(kind) has a bias of \(shape) for \(channels) channels")
        }
    }

    /// How many channels a fully connected node makes; nil where its weights do not fit.
    private static func denseOutputs(_ table: FlatTable, _ source: [Int], _ weights: [Int]) throws -> Int? {
        guard weights.count == 2 else { return nil }
        let isTransposed = try table.uint(4) & transposedWeights != 0
        let (outputs, inputs) = isTransposed ? (weights[1], weights[0]) : (weights[0], weights[1])
        return source.last == inputs ? outputs : nil
    }

    /// How many channels a convolution makes; nil where its weights do not fit.
    private static func convOutputs(
        _ kind: Int, _ table: FlatTable, _ source: [Int], _ weights: [Int]
    ) throws -> Int? {
        let (height, width) = (try table.uint(4), try table.uint(5))
        let (inputs, each, groups) = (try table.uint(10), try table.uint(11), try table.uint(12))
        let isDepthwise = kind == XnnpackNode.depthwiseConv
        guard !isDepthwise || inputs == 1 else {
            throw Broken("a depthwise convolution of XNNPACK has groups of \(inputs) channels")
        }
        // A product of two numbers of 32 bits is negative where it overflows, and no size is.
        let outputs = each &* groups
        let wanted = isDepthwise ? [1, height, width, outputs] : [outputs, height, width, inputs]
        // Values that are quantized on the way state their sizes with the channels before the rows.
        let fits = weights == wanted && source.count == 4 && [source[1], source[3]].contains(groups &* inputs)
        return fits ? outputs : nil
    }
}
