// swift-tools-version: 6.0
// EdgeCore needs Foundation alone, EdgeCoreML adds the Core ML engine, EdgeDemoKit what the app does behind its screens.
// ExecuTorch/ beside this file is a package of its own, so that nobody downloads ExecuTorch who does not use it. On Linux,
// where neither framework exists, both engines are compiled against stubs of what they use.
import PackageDescription

var products: [Product] = [
    .library(name: "EdgeCore", targets: ["EdgeCore"]),
    .library(name: "EdgeCoreML", targets: ["EdgeCoreML"]),
    .library(name: "EdgeDemoKit", targets: ["EdgeDemoKit"]),
]

var targets: [Target] = [
    .target(name: "EdgeCore"),
    .target(name: "EdgeDemoKit", dependencies: ["EdgeCore", "EdgeCoreML"]),
    .testTarget(name: "EdgeCoreTests", dependencies: ["EdgeCore"]),
    .testTarget(name: "EdgeDemoKitTests", dependencies: ["EdgeDemoKit"]),
]

#if os(Linux)
    targets += [
        .target(name: "CoreML", path: "Stubs/CoreML"),
        .target(name: "EdgeCoreML", dependencies: ["EdgeCore", "CoreML"]),
        .target(name: "ExecuTorch", path: "Stubs/ExecuTorch"),
        .target(
            name: "EdgeExecuTorch", dependencies: ["EdgeCore", "ExecuTorch"],
            path: "ExecuTorch/Sources/EdgeExecuTorch"),
    ]
#else
    targets.append(.target(name: "EdgeCoreML", dependencies: ["EdgeCore"]))
#endif

let package = Package(
    name: "EdgeDemo",
    platforms: [.iOS(.v18), .macOS(.v15)],
    products: products,
    targets: targets,
    swiftLanguageModes: [.v6]
)
