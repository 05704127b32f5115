// swift-tools-version: 6.0
// An app's package on Linux: it takes the libraries by a tag of a repository beside it.
import PackageDescription

let products = ["EdgeFormer", "EdgeFormerCoreML", "EdgeFormerExecuTorch", "EdgeFormerOnnx"]

let package = Package(
    name: "Consumer",
    platforms: [.iOS(.v18), .macOS(.v15)],
    dependencies: [.package(url: "file:///consumer/EdgeFormer", exact: "0.1.0")],
    targets: [
        .executableTarget(
            name: "Consumer", dependencies: products.map { .product(name: $0, package: "EdgeFormer") })
    ]
)
