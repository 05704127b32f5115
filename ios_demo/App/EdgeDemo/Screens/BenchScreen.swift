import EdgeFormer
import EdgeDemoKit
import SwiftUI

/// Every bundle on the device: load time, latency, memory, self-test; the table is shared as JSON.
struct BenchScreen: View {
    @Environment(LibraryModel.self) private var library
    @State private var rounds = 20
    @State private var rows: [BenchRow] = []
    @State private var failures: [String] = []
    @State private var report: URL?
    @State private var current: String?
    @State private var work: Task<Void, Never>?

    var body: some View {
        NavigationStack {
            List {
                Section {
                    Stepper("bench.rounds \(rounds)", value: $rounds, in: 5...200, step: 5)
                    Button(work == nil ? "bench.run" : "bench.stop", action: toggle)
                        .disabled(library.bundles.isEmpty)
                        .accessibilityHint(Text("bench.run.hint"))
                    if let current { ProgressView { Text(verbatim: current) } }
                }
                Section {
                    ForEach(rows) { row in BenchRowView(row: row) }
                    ForEach(failures, id: \.self) { failure in ErrorView(message: failure) }
                }
                if let report {
                    Section { ShareLink("bench.export", item: report).accessibilityHint(Text("bench.export.hint")) }
                }
            }
            .navigationTitle("screen.bench")
            .refreshable { await library.refresh() }
            .onDisappear { work?.cancel() }
        }
    }

    /// Write the report where it can be shared from.
    private func export() throws -> URL {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("edgeformer-bench.json")
        try BenchReport(rows: rows).json().write(to: file)
        return file
    }

    private func toggle() {
        guard work == nil else {
            work?.cancel()
            return
        }
        (rows, failures, report) = ([], [], nil)
        work = Task {
            defer { (work, current) = (nil, nil) }
            for bundle in library.bundles where bundle.task != nil && !Task.isCancelled {
                current = "\(bundle.name) (\(bundle.detail))"
                do {
                    let session = try await library.session(bundle)
                    let measurement = try await session.measure(rounds: rounds)
                    rows.append(BenchRow(session, measurement, try await session.model.selfTest()))
                    report = try export()
                } catch is CancellationError {
                    return
                } catch {
                    failures.append("\(bundle.name): \(error.localizedDescription)")
                }
            }
        }
    }
}

/// One bundle's figures.
private struct BenchRowView: View {
    let row: BenchRow

    var body: some View {
        VStack(alignment: .leading) {
            Text(verbatim: row.name).font(.headline)
            Text(verbatim: "\(row.precision), \(row.attention), \(row.program)").font(.subheadline)
            Text("bench.latency \(row.medianMs) \(row.p90Ms)").monospacedDigit()
            Text("bench.load \(row.loadMs)").monospacedDigit()
            if let memory = row.footprintBytes?.formatted(.byteCount(style: .memory)) {
                Text("bench.memory \(memory)")
            }
            if let stage = row.firstDiverging {
                Label("bench.diverges \(stage)", systemImage: "xmark.circle").foregroundStyle(.red)
                ErrorView(message: row.reason)
            } else {
                Label("bench.passes", systemImage: "checkmark.circle").foregroundStyle(.green)
            }
        }
        .accessibilityElement(children: .combine)
    }
}
