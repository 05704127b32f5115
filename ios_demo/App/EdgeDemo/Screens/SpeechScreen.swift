import EdgeFormer
import EdgeDemoKit
import SwiftUI

/// Text of a recording, or while somebody speaks: what is final, and a guess at the rest.
struct SpeechScreen: View {
    @Environment(LibraryModel.self) private var library
    @Environment(\.scenePhase) private var phase
    @State private var bundle: InstalledBundle?
    @State private var microphone = Microphone()
    @State private var segments: [Segment] = []
    @State private var partial = ""
    /// How long the last audio had waited; nil where that is not worth a word.
    @State private var lateSeconds: Double?
    @State private var statistics: SpeechStatistics?
    @State private var message: String?
    @State private var work: Task<Void, Never>?
    @State private var isChoosing = false

    var body: some View {
        NavigationStack {
            Form {
                Section { BundlePicker(tasks: [.speechRecognition], selection: $bundle).disabled(work != nil) }
                Section {
                    Button(work == nil ? "speech.record" : "speech.stop", action: toggle)
                        .disabled(bundle == nil)
                        .accessibilityHint(Text("speech.record.hint"))
                    Button("speech.file") { isChoosing = true }
                        .disabled(bundle == nil || work != nil)
                }
                Section {
                    ForEach(segments, id: \.start) { segment in Text(verbatim: segment.text) }
                    if !partial.isEmpty {
                        Text(verbatim: partial).foregroundStyle(.secondary).accessibilityLabel(
                            Text("speech.guess \(partial)"))
                    }
                    if let lateSeconds {
                        Text("speech.late \(lateSeconds)").font(.footnote).foregroundStyle(.secondary)
                    }
                    if let statistics {
                        Text("speech.times \(statistics.melMs) \(statistics.encodeMs) \(statistics.decodeMs)")
                            .font(.footnote.monospacedDigit())
                            .foregroundStyle(.secondary)
                    }
                    ErrorView(message: message)
                }
            }
            .navigationTitle("screen.speech")
            .fileImporter(isPresented: $isChoosing, allowedContentTypes: [.audio]) { transcribe($0) }
            .onChange(of: phase) { if phase == .background { microphone.stop() } }
            .onDisappear(perform: stop)
        }
    }

    private func toggle() {
        guard work == nil, let bundle else { return microphone.stop() }
        (segments, partial, lateSeconds, statistics, message) = ([], "", nil, nil, nil)
        work = Task {
            defer { (work, lateSeconds) = (nil, nil) }
            do {
                let transcriber = try await library.session(bundle).model.transcriber()
                try await transcriber.openStream()
                for await block in try await microphone.start(sampleRate: transcriber.sampleRate) {
                    let waited = Double(block.count) / Double(transcriber.sampleRate)
                    lateSeconds = waited < 1 ? nil : waited
                    show(try await transcriber.feed(block))
                }
                guard let end = try await transcriber.finishStream() else { return }
                show(end.updates)
                statistics = end.transcript.statistics
            } catch {
                microphone.stop()
                message = error.localizedDescription
            }
        }
    }

    private func stop() {
        microphone.stop()
        work?.cancel()
    }

    private func transcribe(_ chosen: Result<URL, any Error>) {
        guard work == nil, let bundle else { return }
        (segments, partial, statistics, message) = ([], "", nil, nil)
        work = Task {
            defer { work = nil }
            do {
                let transcriber = try await library.session(bundle).model.transcriber()
                let recording = try Recording.open(chosen.get(), sampleRate: transcriber.sampleRate)
                let found = try await transcriber.transcribe(recording)
                (segments, statistics) = (found.segments, found.statistics)
            } catch is CancellationError {
                // The user left.
            } catch {
                message = error.localizedDescription
            }
        }
    }

    private func show(_ updates: [StreamUpdate]) {
        for update in updates {
            segments += update.final
            partial = update.partial
        }
    }
}
