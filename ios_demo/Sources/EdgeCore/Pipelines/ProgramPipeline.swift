import Foundation

/// A program and its inputs for one raw input; `truncated` says that the raw input lost its end.
struct Prepared: Equatable {
    let program: String
    let inputs: [String: Tensor]
    let truncated: Bool
}

/// Answers each raw input with one run of one program. Calls from several threads are safe; they block.
protocol ProgramPipeline: Sendable {
    associatedtype Raw
    associatedtype Answer: Measured

    var bundle: ModelBundle { get }
    var engine: any Engine { get }

    /// Preprocess one raw input and choose the program for it.
    func prepare(_ raw: Raw) throws -> Prepared

    /// The answer in a program's outputs, without statistics.
    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> Answer

    /// A raw input from the form in which vectors store it.
    func raw(from stored: StoredInput) throws -> Raw

    /// What a recorded input becomes before the program takes it: 8-bit values of images are normalised.
    func restored(_ recorded: Tensor) -> Tensor
}

extension ProgramPipeline {
    func restored(_ recorded: Tensor) -> Tensor { recorded }

    /// Prepare, run and answer, with the time of each.
    func measured(_ raw: Raw) throws -> Answer {
        let clock = ContinuousClock()
        let start = clock.now
        let prepared = try prepare(raw)
        let ready = clock.now
        let outputs = try engine.run(prepared.program, prepared.inputs)
        let done = clock.now
        var result = try answer(outputs, prepared)
        result.statistics = Statistics(
            preprocessMs: (ready - start).milliseconds, runMs: (done - ready).milliseconds,
            postprocessMs: (clock.now - done).milliseconds)
        return result
    }
}

extension Duration {
    /// The duration in milliseconds.
    public var milliseconds: Double { Double(components.seconds) * 1e3 + Double(components.attoseconds) / 1e15 }
}
