import Foundation

/// An error that a user meets. The message is one line: what was expected, what was found, what to do.
public protocol EdgeFormerError: LocalizedError, CustomStringConvertible, Sendable {
    /// The line to show.
    var message: String { get }
}

extension EdgeFormerError {
    /// The message.
    public var description: String { message }
    /// The message.
    public var errorDescription: String? { message }
}

/// A bundle that does not follow BUNDLE.md: corrupted, foreign, or made by a newer version.
public struct BundleError: EdgeFormerError {
    public let message: String

    /// An error with the line to show.
    public init(_ message: String) { self.message = message }
}

/// An input (text, image, audio, option) that cannot be used.
public struct InputError: EdgeFormerError {
    public let message: String

    /// An error with the line to show.
    public init(_ message: String) { self.message = message }
}

/// An engine that is missing or too old, or a model that failed.
public struct EngineError: EdgeFormerError {
    public let message: String

    /// An error with the line to show.
    public init(_ message: String) { self.message = message }
}
