import Foundation

/// Looks at a `.pte` before ExecuTorch opens it.
enum PteFile {
    // The extended header at byte 8: magic (4), its length (4), the program's size (8), the base of the segments (8).
    private static let headerBytes = 32

    /// How often each kernel and delegate is called, and the rows of the tables that inputs index.
    ///
    /// - Parameters:
    ///   - data: the whole file.
    ///   - programs: those that the manifest says this file has.
    /// - Returns: both by name.
    /// - Throws: `Broken`: it breaks a rule of BUNDLE.md.
    static func check(_ data: Data, _ programs: [ProgramSpec]) throws -> Contents {
        guard data.count >= headerBytes, data.dropFirst(8).prefix(4).elementsEqual("eh00".utf8) else {
            throw Broken("no .pte file with segments: convert the bundle again")
        }
        let header = FlatBuffer(data)
        guard try header.number(12, 4) >= headerBytes - 8 else { throw Broken("no .pte file: its header is too short") }
        let (size, base) = (try header.number(16, 8), try header.number(24, 8))
        try Limits.check(0, size, before: data.count, "the program")
        try Limits.check(base, 0, before: data.count, "the segments' begin")
        let steps = Steps()
        let program = try FlatBuffer(data.prefix(size), steps).root("ET12", PteLayout.program)
        let segments = try PteSegments(data, steps, program, base: base, programBytes: size)
        for table in try program.tables(2) + program.tables(3) where try table.count(0, itemBytes: 1) > 0 {
            throw Broken("it has constants or delegates' data in its flatbuffer")
        }
        let values = PteValues(
            constants: try program.table(5).map(segments.rooms) ?? [],
            states: try program.tables(6).map(segments.rooms), file: FlatBuffer(data, steps))
        var found = Contents()
        var names: Set<ExactString> = []
        for plan in try program.tables(1) {
            let name = try plan.text(0)
            guard names.insert(ExactString(name)).inserted else {
                throw Broken("it has the method \(shown(name)) twice")
            }
            do {
                var method = try PteMethod(plan, segments, values)
                let own = try method.check(programs.filter { $0.entry == name })
                found.operators.merge(own.operators, uniquingKeysWith: +)
                found.rows.merge(own.rows, uniquingKeysWith: { $1 })
            } catch let error as Broken {
                throw Broken("method \(shown(name)): \(error.message)")
            }
        }
        for program in programs where !names.contains(ExactString(program.entry)) {
            throw Broken("it has no method \(shown(program.entry))")
        }
        return found
    }
}

/// The parts of a file behind its flatbuffer.
struct PteSegments {
    /// The file's.
    let steps: Steps
    private let data: Data
    private var places: [Range<Int>] = []
    private var named: [ExactString: Int] = [:]

    init(_ data: Data, _ steps: Steps, _ program: FlatTable, base: Int, programBytes: Int) throws {
        (self.data, self.steps) = (data, steps)
        for (number, table) in try program.tables(4).enumerated() {
            guard base >= programBytes else { throw Broken("its segments begin inside its program") }
            let (offset, size) = (try table.long(0), try table.long(1))
            try Limits.check(offset, size, before: data.count - base, "segment \(number)")
            places.append(base + offset..<base + offset + size)
        }
        for table in try program.tables(7) {
            let (key, number) = (try table.text(0), try table.uint(1))
            guard places.indices.contains(number), named.updateValue(number, forKey: ExactString(key)) == nil else {
                throw Broken("it has the named data \(shown(key)) twice, or in no segment")
            }
        }
    }

    /// A segment's bytes.
    func bytes(_ number: Int) throws -> Data {
        guard places.indices.contains(number) else {
            throw Broken("it names the segment \(number) of \(places.count)")
        }
        return data.dropFirst(places[number].lowerBound).prefix(places[number].count)
    }

    /// The size of named data.
    func namedSize(_ key: String) throws -> Int {
        guard let number = named[ExactString(key)] else {
            throw Broken("it names the data \(shown(key)), which it has not")
        }
        return places[number].count
    }

    /// The bytes of a segment from each offset on.
    func rooms(_ table: FlatTable) throws -> [Range<Int>] {
        let offsets = try table.numbers(1, bytes: 8)
        let number = try table.uint(0)
        guard !offsets.isEmpty else { return [] }
        guard places.indices.contains(number) else {
            throw Broken("it names the segment \(number) of \(places.count)")
        }
        return try offsets.map { offset in
            try Limits.check(offset, 0, before: places[number].count, "a constant")
            return places[number].lowerBound + offset..<places[number].upperBound
        }
    }
}

/// A method: its values, and its instructions, which run in order.
private struct PteMethod {
    private static let maxMemoryBytes = 1 << 30
    private static let delegateName = "XnnpackBackend"
    private static let inSegment = 1

    private let plan: FlatTable
    private let segments: PteSegments
    private let values: [PteValue]
    private let operators: [String]
    private let delegates: [Data]
    private let inputs: [Int]
    private var trace: IndexTrace<PteKey>

    init(_ plan: FlatTable, _ segments: PteSegments, _ reader: PteValues) throws {
        (self.plan, self.segments) = (plan, segments)
        let memory = try plan.numbers(8, bytes: 8)
        guard memory.allSatisfy({ (0...Self.maxMemoryBytes).contains($0) }), memory.reduce(0, +) <= Self.maxMemoryBytes
        else { throw Broken("it plans more than 2^30 bytes") }
        for table in try plan.tables(9) where try table.byte(1) != 0 {
            throw Broken("it plans memory of a device")
        }
        let values = try reader.read(try plan.tables(2), memory: memory)
        self.values = values
        let inputs = try plan.ints(3)
        guard inputs.allSatisfy(values.indices.contains) else { throw Broken("an input is none of its values") }
        self.inputs = inputs
        trace = IndexTrace((inputs + values.indices.filter { values[$0].isConstant }).map { values[$0].key(of: $0) })
        operators = try plan.tables(6).map { "\(try $0.text(0)).\(try $0.text(1))" }
        delegates = try plan.tables(7).map { try Self.delegate($0, segments) }
    }

    private static func delegate(_ table: FlatTable, _ segments: PteSegments) throws -> Data {
        guard try table.text(0) == delegateName else {
            throw Broken("it has the delegate \(shown(try table.text(0))): expected \(delegateName)")
        }
        guard let reference = try table.table(1), try reference.byte(0) == inSegment else {
            throw Broken("a delegate's data is in no segment")
        }
        return try segments.bytes(try reference.uint(1))
    }

    /// How often it calls each kernel and delegate, and the rows of the tables that the programs' inputs index.
    mutating func check(_ programs: [ProgramSpec]) throws -> Contents {
        let outputs = try plan.ints(4).map(index)
        let chains = try plan.tables(5)
        guard chains.count == 1 else { throw Broken("it has \(chains.count) chains of instructions: expected one") }
        var found = Contents()
        for instruction in try chains[0].tables(2) {
            if let called = try run(instruction) { found.operators[called, default: 0] += 1 }
        }
        for program in programs {
            try compare(program.inputs, inputs, "inputs")
            try compare(program.outputs, outputs, "outputs")
            found.rows[program.name] = trace.rows(Array(zip(inputs.map(key), program.inputs.map(\.name))))
        }
        return found
    }

    private func key(_ number: Int) -> PteKey { values[number].key(of: number) }

    /// What lay in the memory of a value is written over, in whole or in part.
    private mutating func write(_ number: Int) {
        guard case .memory(let memory, let bytes) = key(number) else { return }
        trace.forget { key in
            guard case .memory(let other, let place) = key else { return false }
            return other == memory && place.overlaps(bytes)
        }
    }

    private func index(_ number: Int) throws -> Int {
        guard values.indices.contains(number) else {
            throw Broken("it names the value \(number) of \(values.count)")
        }
        return number
    }

    /// The kernel or delegate that an instruction calls.
    private mutating func run(_ instruction: FlatTable) throws -> String? {
        let kind = try instruction.byte(0)
        guard let call = try instruction.table(1) else { throw Broken("it has an instruction without arguments") }
        let number = try call.int(0)
        if kind == PteLayout.freeCall {
            _ = try index(number)
            return nil
        }
        let operands = try call.ints(1).map(index)
        if kind == PteLayout.delegateCall {
            guard delegates.indices.contains(number) else {
                throw Broken("it calls the delegate \(number) of \(delegates.count)")
            }
            guard operands.allSatisfy({ values[$0].kind == "T" }) else {
                throw Broken("it gives a delegate what is no tensor")
            }
            for operand in operands { write(operand) }
            try XnnpackGraph.check(
                delegates[number], operands: operands.count, namedSize: segments.namedSize, steps: segments.steps)
            return Self.delegateName
        }
        guard operators.indices.contains(number) else {
            throw Broken("it calls the kernel \(number) of \(operators.count)")
        }
        try checkOperands(operators[number], operands)
        return operators[number]
    }

    private mutating func checkOperands(_ name: String, _ operands: [Int]) throws {
        guard let kernel = PteKernel.all[name] else {
            throw Broken("it calls \(shown(name)), which is none that a reader knows")
        }
        // What a kernel returns is listed once more, as a list where there are several.
        guard operands.count == kernel.kinds.count + 1, let last = operands.last else {
            throw Broken("\(name) is given \(operands.count) operands")
        }
        for (place, expected) in kernel.kinds.enumerated() where !values[operands[place]].fits(expected) {
            throw Broken("operand \(place) of \(name) is \(values[operands[place]].kind): expected \(expected)")
        }
        var written = Array(operands[kernel.kinds.count - kernel.results..<kernel.kinds.count])
        let isList = values[last].kind == "V"
        if name.hasPrefix("executorch_prim::") {
            written = [last]
        } else if (kernel.results > 1 && isList ? values[last].items : [last]) != written, !isList {
            throw Broken("\(name) returns what it does not write")
        }
        for item in written.flatMap({ values[$0].items.isEmpty ? [$0] : values[$0].items }) {
            guard values[item].kind == "T", !values[item].isConstant else {
                throw Broken("\(name) writes to what is no tensor, or a constant")
            }
            write(item)
        }
        if PteKernel.moves.contains(name) { trace.move(key(operands[0]), written.map(key)) }
        if let place = PteKernel.indices[name] {
            try checkIndices(name, rows: values[operands[0]].shape.first ?? 0, key(operands[place]))
        }
    }

    private mutating func checkIndices(_ name: String, rows: Int, _ indices: PteKey) throws {
        let source = trace.index(indices, rows)
        var isKnown = source != nil
        if case .value(let number) = source, values[number].isConstant {
            let numbers = try values[number].numbers?() ?? []
            guard numbers.allSatisfy((0..<rows).contains) else {
                throw Broken("\(name) takes a row of \(rows) by a number beyond them")
            }
            isKnown = !numbers.isEmpty
        }
        // A quantized table's kernel ends the process where there is no such row.
        if !isKnown, name.hasPrefix("quantized_decomposed::") {
            throw Broken("\(name) takes rows by numbers that are neither an input's nor a small constant's")
        }
    }

    private func compare(_ declared: [TensorSpec], _ found: [Int], _ what: String) throws {
        let isSame = zip(declared, found).allSatisfy { spec, number in
            spec.shape == values[number].shape && spec.dtype.rawValue == PteValues.types[values[number].dtype]?.name
        }
        guard isSame, declared.count == found.count else {
            throw Broken("it has other \(what) than the manifest declares")
        }
    }
}
