/// What all engines share: inputs and outputs checked against the manifest.
public struct CheckedPrograms: Sendable {
    private let programs: [String: ProgramSpec]
    private let rows: TableRows

    /// The programs of a manifest; `rows`: what inputs' numbers must be below, as `ModelFiles.check` found it.
    public init(_ programs: [ProgramSpec], rows: TableRows = [:]) {
        self.rows = rows
        self.programs = Dictionary(programs.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    }

    /// The program of that name, if the inputs are exactly what it declares.
    ///
    /// - Throws: `InputError`: an unknown program, or an input that is missing, superfluous, of another type or shape, or
    ///   numbers a row of a table that the model does not have.
    public func checkInputs(_ name: String, _ inputs: [String: Tensor]) throws -> ProgramSpec {
        guard let program = programs[name] else {
            throw InputError(
                "unknown program \(shown(name)): expected one of \(programs.keys.sorted().joined(separator: ", "))")
        }
        guard Set(inputs.keys) == Set(program.inputs.map(\.name)) else {
            throw InputError(
                "\(name): expected the inputs \(program.inputs.map(\.name).joined(separator: ", ")), "
                    + "found \(inputs.keys.sorted().joined(separator: ", "))")
        }
        for spec in program.inputs {
            guard let tensor = inputs[spec.name], tensor.matches(spec) else {
                throw InputError(
                    "\(name): \(spec.name): expected \(spec.dtype.rawValue) \(spec.shape), "
                        + "found \(inputs[spec.name]?.summary ?? "nothing")")
            }
        }
        for (input, count) in rows[name] ?? [:] {
            guard case .int32(let numbers) = inputs[input]?.values,
                let wrong = numbers.first(where: { !(0..<count).contains(Int($0)) })
            else { continue }
            throw InputError(
                "\(name): \(input): expected numbers from 0 to \(count - 1), which is what the model has rows for, "
                    + "found \(wrong)")
        }
        return program
    }

    /// The outputs that a program declares, if the model gave all of them as declared.
    ///
    /// - Throws: `EngineError`: the model and the manifest disagree.
    public func checkOutputs(_ program: ProgramSpec, _ outputs: [String: Tensor]) throws -> [String: Tensor] {
        for spec in program.outputs where outputs[spec.name]?.matches(spec) != true {
            throw EngineError(
                "\(program.name): the manifest declares the output \(spec.name) as \(spec.dtype.rawValue) \(spec.shape), "
                    + "the model gave \(outputs[spec.name]?.summary ?? "nothing"): convert the bundle again")
        }
        return outputs
    }
}
