import EdgeFormer
import Foundation

/// Wall-clock times of single runs.
public struct Measurement: Equatable, Sendable {
    /// What ran.
    public let program: String
    /// Of each run, in milliseconds; at least one.
    public let times: [Double]
    /// Of the whole app after the runs; nil where the system does not tell.
    public let footprintBytes: Int?

    /// The middle of the times, of an even number the mean of the middle two.
    public var medianMs: Double { percentile(50) }

    /// What nine of ten runs stay below, interpolated.
    public var p90Ms: Double { percentile(90) }

    private func percentile(_ percent: Double) -> Double {
        let sorted = times.sorted()
        guard let last = sorted.last else { return .nan }
        let place = percent / 100 * Double(sorted.count - 1)
        let below = Int(place)
        return below + 1 < sorted.count
            ? sorted[below] + (sorted[below + 1] - sorted[below]) * (place - Double(below)) : last
    }
}

/// A bundle's row in the benchmark, which is exported as JSON with these names.
public struct BenchRow: Codable, Equatable, Identifiable, Sendable {
    /// The bundle's name.
    public let name: String
    /// As in the manifest.
    public let task: String
    /// As in the manifest.
    public let precision: String
    /// The attention kernel that the model was exported with.
    public let attention: String
    /// What executed it.
    public let executedBy: String
    /// What ran.
    public let program: String
    /// From files to readiness.
    public let loadMs: Double
    /// Of single runs.
    public let medianMs: Double
    /// Of single runs.
    public let p90Ms: Double
    /// Of the whole app after the runs.
    public let footprintBytes: Int?
    /// Of all files.
    public let sizeBytes: Int
    /// Whether every stage of the self-test is within its tolerance.
    public let selfTestOk: Bool
    /// The first stage that is not.
    public let firstDiverging: String?
    /// What is known of why it is not.
    public let reason: String?

    /// Bundles of one name differ by precision and kernel.
    public var id: String { "\(name) \(precision) \(attention)" }

    /// A row from what was found of a session.
    public init(_ session: BundleSession, _ measurement: Measurement, _ verification: Verification) {
        let manifest = session.manifest
        name = manifest.name
        task = manifest.task.rawValue
        precision = manifest.precision
        attention = manifest.attention
        executedBy = verification.executedBy
        program = measurement.program
        loadMs = session.loadMs
        medianMs = measurement.medianMs
        p90Ms = measurement.p90Ms
        footprintBytes = measurement.footprintBytes
        sizeBytes = session.sizeBytes
        selfTestOk = verification.ok
        firstDiverging = verification.firstDiverging
        reason = verification.reason
    }
}

/// A benchmark of the device, as it is shared.
public struct BenchReport: Codable, Equatable, Sendable {
    /// The device's model, "iPhone17,1".
    public let device: String
    /// Name and version.
    public let system: String
    /// One per bundle.
    public let rows: [BenchRow]

    /// A report of this device.
    public init(rows: [BenchRow]) {
        device = Self.deviceModel()
        system = ProcessInfo.processInfo.operatingSystemVersionString
        self.rows = rows
    }

    /// Sorted keys, indented.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(self)
    }

    private static func deviceModel() -> String {
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: names.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
