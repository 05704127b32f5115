/// What runs a bundle's programs. Calls from several threads are serialised inside the engine.
public protocol Engine: AnyObject, Sendable {
    /// What really executes the programs, with its version: "Core ML, iOS 18.1".
    var executedBy: String { get }

    /// Run one program.
    ///
    /// - Parameters:
    ///   - program: a program's name in the manifest.
    ///   - inputs: one tensor per input of the program, of the type and shape that the manifest states.
    /// - Returns: one tensor per output of the program, by name.
    /// - Throws: `InputError`: an unknown program, or other inputs than it declares. `EngineError`: it failed.
    func run(_ program: String, _ inputs: [String: Tensor]) throws -> [String: Tensor]

    /// A speech decoder over a bucket's three programs, with caches of its own.
    ///
    /// - Throws: `EngineError`: this engine cannot decode speech from this bundle.
    func openDecoder(_ bucket: AudioBucket, _ spec: Transcription) throws -> any SpeechDecoder
}
