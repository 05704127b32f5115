import Foundation

/// A program and its inputs for one raw input, or for a window of it.
struct Prepared: Equatable {
    let program: String
    let inputs: [String: Tensor]
    /// The raw input lost its end.
    let truncated: Bool
    /// Where its tokens stand in the raw input, of tasks that answer with places.
    var places: Places?
    /// The text that answers are places of, or the label that this text stands for.
    var source: String?
}

/// Answers each raw input with one run of one program, or one for each of its windows. Calls from several threads are safe; they block.
protocol ProgramPipeline: Sendable {
    associatedtype Raw
    associatedtype Answer: Measured

    var bundle: ModelBundle { get }
    var engine: any Engine { get }

    /// Preprocess one raw input and choose the program for it.
    func prepare(_ raw: Raw) throws -> Prepared

    /// The answer in a program's outputs, without statistics.
    func answer(_ outputs: [String: Tensor], _ prepared: Prepared) throws -> Answer

    /// The runs that one raw input takes: one, or more of a task that reads it in windows.
    func windows(_ raw: Raw) throws -> [Prepared]

    /// The answer in the outputs of all windows, without statistics.
    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> Answer

    /// A raw input from the form in which vectors store it.
    func raw(from stored: StoredInput) throws -> Raw

    /// What a recorded input becomes before the program takes it: 8-bit values of images are normalised.
    func restored(_ recorded: Tensor) -> Tensor
}

extension ProgramPipeline {
    func restored(_ recorded: Tensor) -> Tensor { recorded }

    func windows(_ raw: Raw) throws -> [Prepared] { [try prepare(raw)] }

    func answer(_ outputs: [[String: Tensor]], _ windows: [Prepared]) throws -> Answer {
        try answer(outputs[0], windows[0])
    }

    /// Prepare, run and answer, with the time of each.
    func measured(_ raw: Raw) throws -> Answer { try measured(raw) { try answer($0, $1) } }

    /// The same with another way from the outputs of the windows to the answer.
    func measured(_ raw: Raw, _ take: ([[String: Tensor]], [Prepared]) throws -> Answer) throws -> Answer {
        try measured({ try windows(raw) }, take)
    }

    /// The same with other windows, too.
    func measured(_ divide: () throws -> [Prepared], _ take: ([[String: Tensor]], [Prepared]) throws -> Answer) throws
        -> Answer
    {
        let clock = ContinuousClock()
        let start = clock.now
        let windows = try divide()
        let ready = clock.now
        let outputs = try windows.map { try engine.run($0.program, $0.inputs) }
        let done = clock.now
        var result = try take(outputs, windows)
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
