import SwiftUI

/// Five screens over the bundles that lie on the device.
@main
struct EdgeDemoApp: App {
    @State private var library = LibraryModel()

    var body: some Scene {
        WindowGroup {
            TabView {
                Tab("screen.text", systemImage: "text.quote") { TextScreen() }
                Tab("screen.vision", systemImage: "camera") { VisionScreen() }
                Tab("screen.speech", systemImage: "waveform") { SpeechScreen() }
                Tab("screen.bench", systemImage: "speedometer") { BenchScreen() }
                Tab("screen.about", systemImage: "info.circle") { AboutScreen() }
            }
            .environment(library)
            .task { await library.refresh() }
        }
    }
}
