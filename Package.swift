// swift-tools-version:6.2
import PackageDescription

// The floors of the house, lowest first: a target imports only what stands below it.
// See docs/architecture.md.

let warnings: [CSetting] = [.unsafeFlags(["-O3", "-Wall", "-Wextra"])]

func library(
  _ name: String, _ dependencies: [Target.Dependency] = []
) -> Target {
  .target(name: name, dependencies: dependencies, path: "Shared/\(name)")
}

func cLibrary(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, path: "Shared/\(name)", cSettings: warnings)
}

func service(
  _ product: String, _ folder: String, _ dependencies: [Target.Dependency]
) -> Target {
  .executableTarget(name: product, dependencies: dependencies, path: "Services/\(folder)")
}

func tests(
  _ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []
) -> Target {
  .testTarget(
    name: name, dependencies: dependencies + ["Support"], path: "Tests/\(name)", exclude: exclude)
}

let arguments: Target.Dependency = .product(
  name: "ArgumentParser", package: "swift-argument-parser")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(
  name: "ServiceLifecycle", package: "swift-service-lifecycle")
let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let yams: Target.Dependency = .product(name: "Yams", package: "Yams")

let package = Package(
  name: "chiasm",
  products: [
    .executable(name: "chiasm", targets: ["chiasm"]),
    .executable(name: "chiasm-gateway", targets: ["chiasm-gateway"]),
    .executable(name: "chiasm-vision", targets: ["chiasm-vision"]),
    .executable(name: "chiasm-projector", targets: ["chiasm-projector"]),
    .executable(name: "chiasm-language", targets: ["chiasm-language"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(
      url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
  ],
  targets: [
    // Floor 0: C, and doors to system libraries.
    .systemLibrary(
      name: "COpenBLAS", path: "Shared/COpenBLAS", pkgConfig: "openblas",
      providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(
      name: "CProtobufC", path: "Shared/CProtobufC", pkgConfig: "libprotobuf-c",
      providers: [.apt(["libprotobuf-c-dev"])]),
    cLibrary("CMessages", ["CProtobufC"]),
    cLibrary("CKernels"),
    .target(
      name: "CImageCodec", path: "Shared/CImageCodec", cSettings: warnings,
      linkerSettings: [.linkedLibrary("jpeg"), .linkedLibrary("png")]),
    .target(
      name: "CSentencePiece", path: "Shared/CSentencePiece",
      linkerSettings: [.linkedLibrary("sentencepiece")]),
    cLibrary("CPlatform"),
    .systemLibrary(
      name: "CCrypto", path: "Shared/CCrypto", pkgConfig: "libcrypto",
      providers: [.apt(["libssl-dev"])]),
    .systemLibrary(
      name: "CEdit", path: "Shared/CEdit", pkgConfig: "libedit",
      providers: [.apt(["libedit-dev"])]),

    // Floor 1: values.
    library("Tensors"),
    library("Text", ["CSentencePiece"]),
    library("Sampling"),
    library("Threads", ["CPlatform"]),
    library("Training"),

    // Floor 2: operations and the formats of the outside.
    library("Kernels", ["Tensors", "CKernels", "CPlatform"]),
    library("Checkpoint", ["Tensors", "CCrypto"]),
    library("Images", ["CImageCodec", "Tensors"]),
    library("Messages", ["CMessages", "CProtobufC", "Tensors"]),

    // Floor 3: the wire and the model.
    library("Transport", ["Messages", "Tensors", "Threads", "CPlatform", lifecycle]),
    library("InternVL", ["Kernels", "Checkpoint", "Tensors", "Training"]),
    library(
      "TrainingData", ["Text", "Images", "Checkpoint", "Tensors", "Training", "Sampling"]),

    // Floor 4: a slice as a service, the sequencing of requests, the mesh of processes.
    library(
      "StageRuntime",
      [
        "InternVL", "Training", "Transport", "Messages", "Kernels", "Checkpoint", "Sampling",
        "Threads", "Tensors", arguments, lifecycle, logging,
      ]),
    library(
      "Sequencer",
      [
        "Transport", "Messages", "Text", "Images", "Checkpoint", "Threads", "CPlatform", "Tensors",
        "Training", "TrainingData", "InternVL", "Kernels", logging,
      ]),
    library(
      "HTTPGateway",
      ["Sequencer", "Messages", "Transport", "Text", "Tensors", hummingbird, lifecycle, logging]),
    library("Mesh", ["Training", "Transport", "Messages", "CPlatform", yams]),

    // Floor 5: executables.
    service("chiasm-vision", "VisionEncoder", ["StageRuntime", arguments]),
    service("chiasm-projector", "Projector", ["StageRuntime", arguments]),
    service("chiasm-language", "LanguageModel", ["StageRuntime", "Kernels", arguments]),
    service(
      "chiasm-gateway", "Gateway", ["HTTPGateway", "Sequencer", arguments, lifecycle, logging]),
    service(
      "chiasm", "Chiasm",
      [
        "CEdit", yams, "Mesh", "Sequencer", "InternVL", "Checkpoint", "Kernels", "Training",
        "TrainingData", "Images", "Text", "Transport", "Messages", "Tensors", "Threads", arguments,
        .product(name: "UnixSignals", package: "swift-service-lifecycle"), logging,
      ]),

    // Tests.
    .target(name: "Support", dependencies: ["Tensors"], path: "Tests/Support"),
    tests("TensorsTests", ["Tensors"]),
    tests("ThreadsTests", ["Threads"]),
    tests("KernelsTests", ["Kernels", "CKernels", "COpenBLAS", "Tensors"]),
    tests("CheckpointTests", ["Checkpoint", "Tensors"]),
    tests("ImagesTests", ["Images", "Tensors"]),
    tests("TextTests", ["Text"]),
    tests("SamplingTests", ["Sampling"]),
    tests("TrainingTests", ["Training"]),
    tests(
      "TrainingDataTests", ["TrainingData", "Training", "Checkpoint", "Text", "Images", "Tensors"]),
    tests("MessagesTests", ["Messages"]),
    tests("TransportTests", ["Transport", "Messages", "Tensors", "CPlatform"]),
    tests("HTTPGatewayTests", ["HTTPGateway", "Tensors", hummingbird]),
    tests("InternVLTests", ["InternVL", "Kernels", "Checkpoint", "Tensors", "Training"]),
    tests(
      "MeshTests",
      [
        "Mesh", "Sequencer", "StageRuntime", "InternVL", "Checkpoint", "Kernels", "Transport",
        "Messages", "Tensors", "CPlatform", "Training", "TrainingData",
      ]),
  ]
)
