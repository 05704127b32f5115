import EdgeFormer
import EdgeDemoKit
import PhotosUI
import SwiftUI

/// Labels for a photo of the library, or for what the camera sees.
struct VisionScreen: View {
    @Environment(LibraryModel.self) private var library
    @Environment(\.scenePhase) private var phase
    @State private var bundle: InstalledBundle?
    @State private var item: PhotosPickerItem?
    @State private var photo: UIImage?
    @State private var camera: Camera?
    @State private var scores: ClassificationResult?
    @State private var message: String?
    @State private var work: Task<Void, Never>?

    var body: some View {
        NavigationStack {
            Form {
                Section { BundlePicker(tasks: [.imageClassification], selection: $bundle) }
                Section {
                    PhotosPicker("vision.photo", selection: $item, matching: .images)
                        .accessibilityHint(Text("vision.photo.hint"))
                    Button(camera == nil ? "vision.camera" : "vision.camera.stop", action: toggleCamera)
                        .accessibilityHint(Text("vision.camera.hint"))
                }
                .disabled(bundle == nil)
                Section {
                    if let camera {
                        CameraPreview(camera: camera).frame(height: 280).accessibilityLabel(Text("vision.preview"))
                    } else if let photo {
                        Image(uiImage: photo).resizable().scaledToFit().accessibilityLabel(Text("vision.chosen"))
                    }
                    if let scores { ScoresView(result: scores) }
                    ErrorView(message: message)
                }
            }
            .navigationTitle("screen.vision")
            .onChange(of: item) { classifyPhoto() }
            .onChange(of: phase) { if phase != .active { stop() } }
            .onDisappear(perform: stop)
        }
    }

    private func stop() {
        work?.cancel()
        camera?.stop()
        (work, camera) = (nil, nil)
    }

    private func classifyPhoto() {
        stop()
        guard let bundle, let item else { return }
        (scores, message) = (nil, nil)
        work = Task {
            do {
                guard let file = try await item.loadTransferable(type: Data.self) else {
                    throw InputError(String(localized: "error.photo.unreadable"))
                }
                photo = UIImage(data: file)
                scores = try await library.session(bundle).model.classify(file: file)
            } catch {
                message = error.localizedDescription
            }
        }
    }

    private func toggleCamera() {
        guard camera == nil, let bundle else { return stop() }
        let camera = Camera()
        (self.camera, photo, scores, message) = (camera, nil, nil, nil)
        work = Task {
            do {
                try await camera.start()
                let session = try await library.session(bundle)
                for await frame in camera.frames {
                    try Task.checkCancellation()
                    scores = try await session.model.classify(frame)
                }
            } catch is CancellationError {
                // The user left.
            } catch {
                message = error.localizedDescription
                stop()
            }
        }
    }
}
