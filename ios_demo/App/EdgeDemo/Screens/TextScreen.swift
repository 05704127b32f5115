import EdgeFormer
import EdgeDemoKit
import SwiftUI

/// What a bundle of any task that reads texts answers to a text or a pair of texts.
struct TextScreen: View {
    @Environment(LibraryModel.self) private var library
    @State private var bundle: InstalledBundle?
    @State private var text = ""
    @State private var pair = ""
    @State private var answer: TextAnswer?
    @State private var message: String?
    @State private var work: Task<Void, Never>?

    var body: some View {
        NavigationStack {
            Form {
                Section { BundlePicker(tasks: TextAnswer.tasks, selection: $bundle) }
                Section {
                    TextField("text.input", text: $text, axis: .vertical)
                    TextField("text.pair", text: $pair, axis: .vertical)
                    Button("text.run", action: run)
                        .disabled(bundle == nil || text.isEmpty || work != nil)
                        .accessibilityHint(Text("text.run.hint"))
                }
                Section {
                    if work != nil { ProgressView("state.working") }
                    if let answer { AnswerView(answer: answer) }
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
        (answer, message) = (nil, nil)
        work = Task {
            defer { work = nil }
            do {
                answer = try await library.session(bundle).model.answer(raw)
            } catch {
                message = error.localizedDescription
            }
        }
    }
}

/// An answer by its kind.
private struct AnswerView: View {
    let answer: TextAnswer

    var body: some View {
        switch answer {
        case .labels(let result): ScoresView(result: result)
        case .embedding(let result): EmbeddingView(result: result)
        case .score(let result):
            LabeledContent("text.score") { Text(result.score, format: .number.precision(.fractionLength(4))) }
        case .spans(let result): rows(result.answers.map { ($0.text, $0.score) })
        case .entities(let result): rows(result.entities.map { ("\($0.text): \($0.label)", $0.score) })
        case .fills(let result): rows(result.fills.map { ($0.text, $0.score) })
        }
    }

    @ViewBuilder
    private func rows(_ parts: [(text: String, score: Double)]) -> some View {
        if parts.isEmpty { Text("text.nothing") }
        ForEach(Array(parts.enumerated()), id: \.offset) { _, part in
            LabeledContent(part.text) { Text(part.score, format: .percent.precision(.fractionLength(1))) }
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
