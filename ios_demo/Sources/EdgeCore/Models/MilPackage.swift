import Foundation

/// Looks at a Core ML package before Core ML compiles it.
enum MilPackage {
    static let modelFile = "Data/com.apple.CoreML/model.mlmodel"
    static let weightsFile = "Data/com.apple.CoreML/weights/weight.bin"
    static let manifestFile = "Manifest.json"
    private static let maxManifestBytes = 1 << 16
    private static let paths: Set<String> = ["com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"]

    // Fields of Model.proto. A model of another kind than a program has another field, from 200 on.
    private static let updatable = 10
    private static let program = 502
    private static let kinds = 200...3000

    /// How often each operator occurs, and the rows of the tables that inputs index.
    ///
    /// - Parameters:
    ///   - files: the names in the package's folder.
    ///   - programs: those that the manifest says this package has.
    ///   - read: gives a file's bytes by such a name.
    /// - Returns: both by name.
    /// - Throws: `Broken`: it breaks a rule of BUNDLE.md.
    static func check(
        _ files: Set<String>, _ programs: [ProgramSpec], read: (String) throws -> Data
    ) throws -> Contents {
        let known = [manifestFile, modelFile, weightsFile]
        guard files.isSuperset(of: known.prefix(2)), files.isSubset(of: known) else {
            throw Broken("it has the files \(files.sorted()): expected \(known)")
        }
        try checkManifest(try read(manifestFile))
        let file = Protobuf(try read(modelFile))
        let values = MilValues(file: file, weights: files.contains(weightsFile) ? try read(weightsFile) : nil)
        let model = try file.message(file.whole, Set(kinds).union([1, 2, updatable]), "the model")
        let found = model.numbers.filter(kinds.contains)
        guard found == [program], try model.int(updatable) == 0 else {
            throw Broken("it is updatable, or a model of the kind \(found): expected an mlProgram")
        }
        var functions: [ExactString: MilFunction] = [:]
        var counts: [String: Int] = [:]
        for part in try file.message(try model.part(program), [1, 2, 3, 4], "the program").parts(2) {
            let entry = try file.message(part, [1, 2], "a function")
            let name = try entry.text(1)
            let function = try MilFunction(values, try entry.part(2), "the function \(shown(name))", &counts)
            guard functions.updateValue(function, forKey: ExactString(name)) == nil else {
                throw Broken("it has the function \(shown(name)) twice")
            }
        }
        var rows: TableRows = [:]
        for program in programs {
            guard let function = functions[ExactString(program.entry)] else {
                throw Broken("it has no function \(shown(program.entry))")
            }
            try function.compare(program)
            rows[program.name] = function.rows
        }
        return Contents(operators: counts, rows: rows)
    }

    /// Refuse a package whose own manifest names a file elsewhere.
    private static func checkManifest(_ data: Data) throws {
        let none = Broken("its \(manifestFile) is none of a Core ML package")
        guard let value = try? StrictJson.parse(data, file: manifestFile, maxBytes: maxManifestBytes),
            case .object(let object) = value, case .object(let entries)? = object["itemInfoEntries"]
        else { throw none }
        for entry in entries.values {
            guard case .object(let item) = entry, case .string(let path)? = item["path"] else { throw none }
            guard paths.contains(path) else { throw Broken("its \(manifestFile) names \(shown(path))") }
        }
    }
}

/// A function, whose only block runs in order.
private struct MilFunction {
    private let values: MilValues
    private let what: String
    private static let moves: Set<String> = [
        "cast", "expand_dims", "identity", "reshape", "slice_by_index", "slice_by_size", "squeeze", "tile", "transpose",
    ]

    /// Of the inputs that index a table, the rows of the smallest such table.
    var rows: [String: Int] { trace.rows(inputs.map { (ExactString($0.name), $0.name) }) }
    private var trace = IndexTrace<ExactString>([])
    private var made: [ExactString: MilType?] = [:]
    private var inputs: [(name: String, type: MilType)] = []
    private var outputs: [(name: String, type: MilType)] = []

    init(_ values: MilValues, _ range: Range<Int>, _ what: String, _ counts: inout [String: Int]) throws {
        (self.values, self.what) = (values, what)
        let message = try values.file.message(range, [1, 2, 3, 4], what)
        for part in try message.parts(1) {
            let (name, type) = try named(part)
            guard let type else { throw Broken("\(what) has the input \(shown(name)), which is no tensor") }
            inputs.append((name, type))
            try make(name, type)
        }
        trace = IndexTrace(inputs.map { ExactString($0.name) })
        let blocks = try message.parts(3)
        guard blocks.count == 1 else { throw Broken("\(what) has \(blocks.count) blocks") }
        let entry = try values.file.message(blocks[0], [1, 2], what)
        guard try entry.text(1) == message.text(2) else { throw Broken("\(what) has no block of its opset") }
        let block = try values.file.message(try entry.part(2), [1, 2, 3, 4], what)
        for operation in try block.parts(3) { try run(operation, &counts) }
        for name in try block.texts(2) {
            guard case .some(.some(let type)) = made[ExactString(name)] else {
                throw Broken("\(what) has the output \(shown(name)), which none of its operators makes, or no tensor")
            }
            outputs.append((name, type))
        }
    }

    private func named(_ range: Range<Int>, computed: Bool = true) throws -> (String, MilType?) {
        let message = try values.file.message(range, [1, 2], what)
        let name = try message.text(1)
        return (name, try values.type(try message.part(2), "the value \(shown(name))", computed: computed))
    }

    private mutating func make(_ name: String, _ type: MilType?) throws {
        guard !name.isEmpty, made.updateValue(type, forKey: ExactString(name)) == nil else {
            throw Broken("\(what) makes \(shown(name)) twice")
        }
    }

    private mutating func run(_ range: Range<Int>, _ counts: inout [String: Int]) throws {
        let file = values.file
        let message = try file.message(range, [1, 2, 3, 4, 5], what)
        let name = try message.text(1)
        let what = "\(self.what): the operator \(shown(name))"
        guard try message.parts(4).isEmpty else { throw Broken("\(what) runs other blocks") }
        var operands: [ExactString: ExactString] = [:]
        for part in try message.parts(2) {
            let entry = try file.message(part, [1, 2], what)
            for binding in try file.message(entry.part(2), [1], what).parts(1) {
                let operand = try checkOperand(try file.message(binding, [1, 2], what), what)
                operands[ExactString(try entry.text(1))] = ExactString(operand)
            }
        }
        for part in try message.parts(5) {
            try values.checkValue(try file.message(part, [1, 2], what).part(2), "a constant of \(what)")
        }
        let isConstant = name == "const"
        if !isConstant {
            counts[name, default: 0] += 1
            guard MilOperators.all.contains(name) else { throw Broken("\(what) is none that a reader knows") }
        }
        for part in try message.parts(3) {
            let (result, type) = try named(part, computed: !isConstant)
            try make(result, type)
            if !isConstant { follow(name, operands, ExactString(result), type) }
        }
    }

    /// Where the numbers of inputs go. Core ML may read beyond a table whose row is not there.
    private mutating func follow(
        _ name: String, _ operands: [ExactString: ExactString], _ result: ExactString, _ type: MilType?
    ) {
        // As coremltools writes an index: itself from 0 on, else counted from the end.
        if name == "select", let kept = operands[ExactString("a")] { trace.move(kept, [result]) }
        guard let x = operands[ExactString("x")] else { return }
        if Self.moves.contains(name) { trace.move(x, [result]) }
        guard name == "gather", let by = operands[ExactString("indices")], let shape = type?.shape,
            let table = (made[x] ?? nil)?.shape, let indices = (made[by] ?? nil)?.shape
        else { return }
        // Which axis is gathered is a constant; the declared result says it, too.
        for axis in table.indices where Array(table[..<axis]) + indices + Array(table[(axis + 1)...]) == shape {
            trace.index(by, table[axis])
            return
        }
    }

    /// The name of what is read; empty: a constant that stands here.
    private func checkOperand(_ binding: Protobuf.Message, _ what: String) throws -> String {
        if binding.has(2) {
            try values.checkValue(try binding.part(2), "an operand of \(what)")
            return ""
        }
        let name = try binding.text(1)
        guard made[ExactString(name)] != nil else {
            throw Broken("\(what) reads \(shown(name)), which nothing before it makes")
        }
        return name
    }

    /// Refuse other inputs or outputs than the manifest states; states are none of them.
    func compare(_ program: ProgramSpec) throws {
        guard isAlike(program.inputs, inputs.filter { !$0.type.isState }), isAlike(program.outputs, outputs) else {
            throw Broken("\(what) has other inputs or outputs than the manifest declares")
        }
    }

    private func isAlike(_ declared: [TensorSpec], _ found: [(name: String, type: MilType)]) -> Bool {
        declared.count == found.count
            && declared.allSatisfy { spec in
                found.contains { name, type in
                    name == spec.name && type.shape == spec.shape
                        && MilValues.types[type.dtype]?.name == spec.dtype.rawValue
                }
            }
    }
}
