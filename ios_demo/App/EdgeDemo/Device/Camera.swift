import AVFoundation
import CoreImage
import EdgeFormer
import SwiftUI

/// The back camera: its frames as pixels, the newest only, and a view of what it sees.
final class Camera: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    /// What the preview shows.
    let capture = AVCaptureSession()
    /// Frames as they come; who is slow misses some.
    let frames: AsyncStream<Pixels>
    // Everything below is used on the queue alone.
    private let queue = DispatchQueue(label: "camera")
    private let continuation: AsyncStream<Pixels>.Continuation
    private let renderer = CIContext()

    override init() {
        (frames, continuation) = AsyncStream.makeStream(of: Pixels.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Ask for the camera and start it.
    ///
    /// - Throws: `InputError`: no camera, or it is not allowed.
    func start() async throws {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw InputError(String(localized: "error.camera.denied"))
        }
        try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
            queue.async {
                done.resume(with: Result { try self.configure() })
            }
        }
    }

    /// Stop the camera; it can be started again.
    func stop() {
        queue.async { self.capture.stopRunning() }
    }

    private func configure() throws {
        if capture.inputs.isEmpty {
            guard let device = AVCaptureDevice.default(for: .video) else {
                throw InputError(String(localized: "error.camera.missing"))
            }
            let input = try AVCaptureDeviceInput(device: device)
            let output = AVCaptureVideoDataOutput()
            output.alwaysDiscardsLateVideoFrames = true
            output.setSampleBufferDelegate(self, queue: queue)
            guard capture.canAddInput(input), capture.canAddOutput(output) else {
                throw InputError(String(localized: "error.camera.missing"))
            }
            capture.addInput(input)
            capture.addOutput(output)
            output.connection(with: .video)?.videoRotationAngle = 90
        }
        capture.startRunning()
    }

    func captureOutput(
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection
    ) {
        guard let buffer = sampleBuffer.imageBuffer else { return }
        let frame = CIImage(cvPixelBuffer: buffer)
        guard let image = renderer.createCGImage(frame, from: frame.extent), let found = try? pixels(of: image) else {
            return
        }
        continuation.yield(found)
    }
}

/// What a camera sees.
struct CameraPreview: UIViewRepresentable {
    let camera: Camera

    func makeUIView(context: Context) -> PreviewView {
        let view = PreviewView()
        view.preview?.session = camera.capture
        view.preview?.videoGravity = .resizeAspectFill
        return view
    }

    func updateUIView(_ view: PreviewView, context: Context) {}

    /// A view whose layer is the camera's.
    final class PreviewView: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
        var preview: AVCaptureVideoPreviewLayer? { layer as? AVCaptureVideoPreviewLayer }
    }
}
