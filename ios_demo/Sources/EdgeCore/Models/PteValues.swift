/// A tensor by its planned memory, as a view in another shape is the same memory; one that has none by its number.
enum PteKey: Hashable {
    case memory(Int, Range<Int>)
    case value(Int)
}

/// A value of a method.
struct PteValue {
    /// A letter of `PteLayout.kinds`.
    let kind: Character
    /// Of a tensor.
    var shape: [Int] = []
    /// Of a tensor, its number in ScalarType.
    var dtype = -1
    /// Whether it is a tensor whose bytes are the file's own.
    var isConstant = false
    /// Of a list, the numbers of the values in it; absent ones are left out.
    var items: [Int] = []
    /// Gives those of a small constant of integers; nil: it is none.
    var numbers: (() throws -> [Int])?
    /// A tensor's planned memory; nil: it has none.
    var place: (memory: Int, bytes: Range<Int>)?

    /// What it is followed by; number: its own.
    func key(of number: Int) -> PteKey { place.map { .memory($0.memory, $0.bytes) } ?? .value(number) }

    /// Whether a kernel's operand of that kind may be this.
    func fits(_ expected: Character) -> Bool {
        if expected.isLowercase, kind == "N" { return true }
        let letter = Character(expected.uppercased())
        switch letter {
        case "S": return "IBD".contains(kind)
        case "O": return "OV".contains(kind)
        case "D": return "DI".contains(kind)
        default: return kind == letter
        }
    }
}

/// Reads the values of a file's methods.
struct PteValues {
    /// ScalarType: its number to its name and size in bytes; what is not here is not computed with.
    static let types: [Int: (name: String, bytes: Int)] = [
        0: ("uint8", 1), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("int64", 8), 5: ("float16", 2),
        6: ("float32", 4), 7: ("float64", 8), 11: ("bool", 1), 15: ("bfloat16", 2),
    ]
    private static let dynamicBound = 1
    private static let maxSteering = 4096

    /// Where each constant's bytes begin, up to the end of their segment.
    let constants: [Range<Int>]
    /// The same of each segment of states.
    let states: [[Range<Int>]]
    /// The whole file.
    let file: FlatBuffer

    /// All values of a method; memory: the sizes that it plans.
    func read(_ tables: [FlatTable], memory: [Int]) throws -> [PteValue] {
        let values = try tables.enumerated().map { try value($0, $1, memory) }
        for value in values {
            for item in value.items {
                guard values.indices.contains(item), "VO".contains(value.kind) == (values[item].kind == "T"),
                    value.kind != "L" || values[item].kind == "I"
                else { throw Broken("a list has the value \(item) of \(values.count), or one of another kind") }
            }
        }
        return values
    }

    private func value(_ number: Int, _ table: FlatTable, _ memory: [Int]) throws -> PteValue {
        guard let kind = PteLayout.letter(try table.byte(0)), let content = try table.table(1) else {
            throw Broken("value \(number) is of a kind that no reader knows")
        }
        if kind == "T" { return try tensor("tensor \(number)", content, memory) }
        guard "LVO".contains(kind) else { return PteValue(kind: kind) }
        let items = kind == "L" ? try content.numbers(0, bytes: 8) : try content.ints(0)
        guard items.allSatisfy({ ((kind == "O" ? -1 : 0)...Limits.maxSize).contains($0) }) else {
            throw Broken("value \(number) is a list of values that are not there")
        }
        return PteValue(kind: kind, items: items.filter { $0 >= 0 })
    }

    private func tensor(_ what: String, _ table: FlatTable, _ memory: [Int]) throws -> PteValue {
        let dtype = try table.byte(0)
        guard let type = Self.types[dtype] else {
            throw Broken("\(what) has the type \(dtype), which is no dense number")
        }
        let (buffer, plan, extra) = (try table.uint(5), try table.table(6), try table.table(9))
        let isConstant = plan == nil && buffer > 0
        let shape = try Limits.check(try table.ints(2), what, computed: !isConstant)
        let order = try table.numbers(3, bytes: 1).sorted()
        guard try table.int(1) == 0, try table.byte(7) == 0, order == Array(shape.indices) else {
            throw Broken("\(what) is not dense")
        }
        guard try table.byte(8) <= Self.dynamicBound else { throw Broken("\(what) has a shape without bound") }
        if let extra {
            guard try extra.byte(2) == 0, try extra.byte(3) == 0 else {
                throw Broken("\(what) lies in another file or on a device")
            }
        }
        let size = Limits.bytes(shape, bits: 8 * type.bytes)
        var planned: (memory: Int, bytes: Range<Int>)?
        if let plan {
            let place = try plan.uint(0)
            guard place >= 1, memory.indices.contains(place) else {
                throw Broken("\(what) is planned into memory \(place) of \(memory.count)")
            }
            let offset = (try plan.uint(1)) | (try plan.uint(2)) << 32
            try Limits.check(offset, size, before: memory[place], what)
            planned = (place, offset..<offset + size)
        }
        if buffer > 0 { try checkContent(what, buffer, size, isConstant, try extra?.long(0) ?? 0) }
        var found = PteValue(kind: "T", shape: shape, dtype: dtype, isConstant: isConstant, place: planned)
        if isConstant, ["int32", "int64"].contains(type.name), size <= Self.maxSteering * type.bytes {
            let begin = constants[buffer].lowerBound
            found.numbers = { [file] in
                let count = size / type.bytes
                try file.spend(count)  // many operators may read one
                return try (0..<count).map { index in
                    let number = try file.number(begin + type.bytes * index, type.bytes)
                    return type.bytes == 4 ? Int(Int32(truncatingIfNeeded: number)) : number
                }
            }
        }
        return found
    }

    private func checkContent(_ what: String, _ buffer: Int, _ size: Int, _ isConstant: Bool, _ state: Int) throws {
        guard isConstant || states.indices.contains(state) else {
            throw Broken("\(what) starts with the state \(state) of \(states.count)")
        }
        let rooms = isConstant ? constants : states[state]
        guard rooms.indices.contains(buffer), size <= rooms[buffer].count else {
            throw Broken("\(what) has fewer bytes than its shape needs")
        }
    }
}
