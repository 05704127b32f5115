import EdgeCore
import EdgeDemoKit
import SwiftUI

/// Labels, or the embedding, of a text or a pair of texts.
struct TextScreen: View {
    @Environment(LibraryModel.self) private var library
    @State private var bundle: InstalledBundle?
    @State private var text = ""
    @State private var pair = ""
    @State private var scores: ClassificationResult?
    @State private var embedding: EmbeddingResult?
    @State private var message: String?
    @State private var work: Task<Void, Never>?

    var body: some View {
        NavigationStack {
            Form {
                Section { BundlePicker(tasks: [.textClassification, .textEmbedding], selection: $bundle) }
                Section {
                    TextField("text.input", text: $text, axis: .vertical)
                    TextField("text.pair", text: $pair, axis: .vertical)
                    Button("text.run", action: run)
                        .disabled(bundle == nil || text.isEmpty || work != nil)
                        .accessibilityHint(Text("text.run.hint"))
                }
                Section {
                    if work != nil { ProgressView("state.working") }
                    if let scores { ScoresView(result: scores) }
                    if let embedding { EmbeddingView(result: embedding) }
                    ErrorView(message: message)
                }
            }
            .navigationTitle("screen.text")
            .onDisappear { work?.cancel() }
        }
    }

    private func run() {
        guard let bundle else { return }
        let raw: RawText = pair.isEmpty ? .text(text) : .pair(text, pair)
        (scores, embedding, message) = (nil, nil, nil)
        work = Task {
            defer { work = nil }
            do {
                let session = try await library.session(bundle)
                if bundle.task == .textEmbedding {
                    embedding = try await session.embed(raw)
                } else {
                    scores = try await session.classify(raw)
                }
            } catch {
                message = error.localizedDescription
            }
        }
    }
}

/// An embedding's length and its first components.
private struct EmbeddingView: View {
    let result: EmbeddingResult

    var body: some View {
        LabeledContent("text.components") { Text(result.vector.count, format: .number) }
        Text(
            verbatim: result.vector.prefix(8).map { $0.formatted(.number.precision(.fractionLength(4))) }.joined(
                separator: "  ")
        )
        .font(.footnote.monospacedDigit())
        .accessibilityLabel(Text("text.components.first"))
    }
}
