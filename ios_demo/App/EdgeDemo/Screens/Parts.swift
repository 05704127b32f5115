import EdgeFormer
import EdgeDemoKit
import SwiftUI

/// Chooses a bundle that does one of some things, or says how to get one.
struct BundlePicker: View {
    @Environment(LibraryModel.self) private var library
    let tasks: Set<BundleTask>
    @Binding var selection: InstalledBundle?

    var body: some View {
        let bundles = library.bundles(for: tasks)
        if bundles.isEmpty {
            ContentUnavailableView("bundles.none", systemImage: "shippingbox", description: Text("bundles.none.help"))
        } else {
            Picker("bundles.choose", selection: $selection) {
                ForEach(bundles) { bundle in
                    Text(verbatim: "\(bundle.name) (\(bundle.detail))").tag(Optional(bundle))
                }
            }
            .accessibilityHint(Text("bundles.choose.hint"))
            .onAppear { if selection == nil { selection = bundles.first } }
            .onChange(of: bundles) { if selection.map({ !bundles.contains($0) }) ?? true { selection = bundles.first } }
        }
    }
}

/// The best labels with their scores as bars, and what the answer cost.
struct ScoresView: View {
    let result: ClassificationResult

    var body: some View {
        ForEach(result.top(5).entries, id: \.label) { entry in
            VStack(alignment: .leading) {
                LabeledContent(entry.label) { Text(entry.score, format: .percent.precision(.fractionLength(1))) }
                ProgressView(value: min(1, max(0, entry.score)))
            }
            .accessibilityElement(children: .ignore)
            .accessibilityLabel(Text(verbatim: entry.label))
            .accessibilityValue(Text(entry.score, format: .percent.precision(.fractionLength(1))))
        }
        if result.truncated { Text("result.truncated").font(.footnote) }
        if let statistics = result.statistics {
            Text("result.times \(statistics.preprocessMs) \(statistics.runMs) \(statistics.postprocessMs)")
                .font(.footnote.monospacedDigit())
                .foregroundStyle(.secondary)
        }
    }
}

/// What went wrong, where something did.
struct ErrorView: View {
    let message: String?

    var body: some View {
        if let message {
            Label(message, systemImage: "exclamationmark.triangle")
                .foregroundStyle(.red)
                .accessibilityLabel(Text("error.spoken \(message)"))
        }
    }
}
