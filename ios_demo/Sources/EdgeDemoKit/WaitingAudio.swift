import Synchronization

/// Audio between who records it and who transcribes it.
///
/// All that waits is taken at once: who comes late makes one guess at it, not one for each second.
public final class WaitingAudio: Sendable {
    private let samples = Mutex<[Float]>([])
    private let arrivals: AsyncStream<Void>
    private let arrived: AsyncStream<Void>.Continuation

    /// Nothing waits yet.
    public init() { (arrivals, arrived) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1)) }

    /// Add recorded samples (N). From any thread.
    public func append(_ block: [Float]) {
        samples.withLock { $0 += block }
        arrived.yield()
    }

    /// No more audio comes: `next` gives what waits, then nil.
    public func finish() { arrived.finish() }

    /// Call when the one who transcribes has gone away, or after `finish`.
    public func onEnd(_ action: @escaping @Sendable () -> Void) { arrived.onTermination = { _ in action() } }

    /// All samples (N) that came since the last block, as a sequence for one reader, which waits for them.
    public var blocks: AsyncMapSequence<AsyncStream<Void>, [Float]> {
        arrivals.map { [self] in
            samples.withLock { waiting in
                defer { waiting = [] }
                return waiting
            }
        }
    }
}
