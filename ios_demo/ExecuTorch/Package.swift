// swift-tools-version: 6.0
// The ExecuTorch engine as a package of its own: add it to an app beside EdgeCore, and ExecuTorch's binaries are fetched.
import PackageDescription

let package = Package(
    name: "EdgeExecuTorch",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [.library(name: "EdgeExecuTorch", targets: ["EdgeExecuTorch"])],
    dependencies: [
        .package(name: "EdgeDemo", path: ".."),
        .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.0.0"),
    ],
    targets: [
        .target(
            name: "EdgeExecuTorch",
            dependencies: [
                .product(name: "EdgeCore", package: "EdgeDemo"),
                .product(name: "executorch", package: "executorch"),
                .product(name: "backend_xnnpack", package: "executorch"),
                .product(name: "kernels_optimized", package: "executorch"),
                .product(name: "kernels_quantized", package: "executorch"),
            ]
        )
    ],
    swiftLanguageModes: [.v6]
)
