import Synchronization

/// Audio between who records it and who transcribes it.
///
/// All that waits is taken at once: who comes late makes one guess at it, not one for each second.
public final class WaitingAudio: Sendable {
    private let waiting = Mutex<[[Float]]>([])
    private let arrivals: AsyncStream<Void>
    private let arrived: AsyncStream<Void>.Continuation

    /// Nothing waits yet.
    public init() { (arrivals, arrived) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1)) }

    /// Add recorded samples (N). From any thread.
    public func append(_ block: [Float]) {
        waiting.withLock { $0.append(block) }
        arrived.yield()
    }

    /// No more audio comes: `next` gives what waits, then nil.
    public func finish() { arrived.finish() }

    /// Call when the one who transcribes has gone away, or after `finish`.
    public func onEnd(_ action: @escaping @Sendable () -> Void) { arrived.onTermination = { _ in action() } }

    /// All samples (N) that came since the last block, as a sequence for one reader, which waits for them.
    public var blocks: AsyncMapSequence<AsyncStream<Void>, [Float]> { arrivals.map { [self] in take().flatMap { $0 } } }

    /// The same, block by block as they came.
    var deliveries: AsyncMapSequence<AsyncStream<Void>, [[Float]]> { arrivals.map { [self] in take() } }

    private func take() -> [[Float]] {
        waiting.withLock { waiting in
            defer { waiting = [] }
            return waiting
        }
    }
}
