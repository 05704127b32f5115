import EdgeFormer
import EdgeDemoKit
import SwiftUI

/// What the app is, and where each bundle comes from, as its manifest says.
struct AboutScreen: View {
    @Environment(LibraryModel.self) private var library

    var body: some View {
        NavigationStack {
            List {
                Section {
                    Text("about.app")
                    LabeledContent("about.licence") { Text(verbatim: "Apache-2.0") }
                }
                Section("about.bundles") {
                    ForEach(library.bundles) { bundle in
                        NavigationLink(value: bundle) {
                            LabeledContent(bundle.name) { Text(verbatim: bundle.detail) }
                        }
                    }
                }
            }
            .navigationTitle("screen.about")
            .navigationDestination(for: InstalledBundle.self) { ProvenanceView(bundle: $0) }
        }
    }
}

/// A bundle's licence and provenance.
private struct ProvenanceView: View {
    let bundle: InstalledBundle
    @State private var manifest: Manifest?
    @State private var message: String?

    var body: some View {
        List {
            if let manifest {
                fact("about.licence", manifest.license ?? String(localized: "about.licence.none"))
                fact("about.source", manifest.source.id)
                fact("about.revision", manifest.source.revision ?? String(localized: "about.revision.none"))
                fact("about.weights", manifest.source.weightsSha256)
                fact("about.family", manifest.family)
                fact("about.recipe", manifest.recipe.name)
                fact("about.attention", manifest.attention)
                ForEach(manifest.toolchain.sorted { $0.key < $1.key }, id: \.key) { package, version in
                    LabeledContent(package) { Text(verbatim: version) }
                }
            }
            ErrorView(message: message)
        }
        .navigationTitle(Text(verbatim: bundle.name))
        .task {
            do {
                let url = bundle.url
                manifest = try await Task.detached { try ModelBundle.manifest(of: url) }.value
            } catch {
                message = error.localizedDescription
            }
        }
    }

    private func fact(_ title: LocalizedStringKey, _ value: String) -> some View {
        LabeledContent(title) { Text(verbatim: value).textSelection(.enabled) }
    }
}
