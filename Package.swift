// swift-tools-version: 6.0
// The libraries of iOS and macOS, whose sources lie in ios_demo. EdgeFormer needs Foundation alone; each engine is a product of
// its own, so that nobody links a runtime that no bundle of theirs needs. On Linux, Core ML and ExecuTorch do not exist, and
// their engines are compiled against stubs of what they use; ONNX Runtime is loaded where it is installed.
import PackageDescription

let sources = "ios_demo/Sources"

var targets: [Target] = [
    .target(name: "EdgeFormer", path: "\(sources)/EdgeCore"),
    .target(name: "EdgeDemoKit", dependencies: ["EdgeFormer"], path: "\(sources)/EdgeDemoKit"),
    .target(name: "EdgeFormerOnnx", dependencies: ["EdgeFormer", "COnnxRuntime"], path: "\(sources)/EdgeOnnx"),
    .testTarget(name: "EdgeCoreTests", dependencies: ["EdgeFormer"], path: "ios_demo/Tests/EdgeCoreTests"),
    .testTarget(name: "EdgeDemoKitTests", dependencies: ["EdgeDemoKit"], path: "ios_demo/Tests/EdgeDemoKitTests"),
]

#if os(Linux)
    targets += [
        .target(name: "CoreML", path: "ios_demo/Stubs/CoreML"),
        .target(name: "EdgeFormerCoreML", dependencies: ["EdgeFormer", "CoreML"], path: "\(sources)/EdgeCoreML"),
        .target(name: "ExecuTorch", path: "ios_demo/Stubs/ExecuTorch"),
        .target(
            name: "EdgeFormerExecuTorch", dependencies: ["EdgeFormer", "ExecuTorch"],
            path: "\(sources)/EdgeExecuTorch"),
        .target(name: "COnnxRuntime", path: "\(sources)/COnnxRuntime", linkerSettings: [.linkedLibrary("dl")]),
    ]
#else
    // As ExecuTorch's own package has them, which is a branch: a package with a version cannot depend on one.
    let executorch = [
        ("executorch", "3a861b6f6afd4264033a592309564932d96af758042b5c75574069fc0893313f"),
        ("backend_xnnpack", "df8de2e5fd8134446a10c1e6ad2170d6d3f99658244ce8d6dab977307474009b"),
        ("kernels_optimized", "57016af23701a3d1a05883a9ed882e30e86c2365bafcc638be6d6754e9e943fe"),
        ("kernels_quantized", "a4f5ad856cd3ff4bac7ccead48b7f681784990b178a11911be9d6d77a88ed82a"),
        ("threadpool", "e036395eadd549dba201e5a9660976cabf978d54e8972d5c37d799d3859e5f4f"),
    ]
    targets += executorch.map { name, checksum in
        .binaryTarget(
            name: name, url: "https://ossci-ios.s3.amazonaws.com/executorch/\(name)-1.5.0.zip", checksum: checksum)
    }
    targets += [
        .target(name: "EdgeFormerCoreML", dependencies: ["EdgeFormer"], path: "\(sources)/EdgeCoreML"),
        .target(
            name: "EdgeFormerExecuTorch",
            dependencies: ["EdgeFormer"] + executorch.map { .byName(name: $0.0) },
            path: "\(sources)/EdgeExecuTorch",
            linkerSettings: ["Accelerate", "CoreGraphics", "CoreImage", "CoreVideo"].map { .linkedFramework($0) }
                + [.linkedLibrary("c++")]),
        .binaryTarget(
            name: "onnxruntime", url: "https://download.onnxruntime.ai/pod-archive-onnxruntime-c-1.24.3.zip",
            checksum: "b7eedc45932bac758ffd057cac0feb3f682269e47750b159e4c865145cbf0a8e"),
        .target(
            name: "COnnxRuntime", dependencies: ["onnxruntime"], path: "\(sources)/COnnxRuntime",
            linkerSettings: [.linkedLibrary("c++")]),
    ]
#endif

let package = Package(
    name: "EdgeFormer",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: [
        .library(name: "EdgeFormer", targets: ["EdgeFormer"]),
        .library(name: "EdgeFormerCoreML", targets: ["EdgeFormerCoreML"]),
        .library(name: "EdgeFormerExecuTorch", targets: ["EdgeFormerExecuTorch"]),
        .library(name: "EdgeFormerOnnx", targets: ["EdgeFormerOnnx"]),
        .library(name: "EdgeDemoKit", targets: ["EdgeDemoKit"]),
    ],
    targets: targets,
    swiftLanguageModes: [.v6]
)
