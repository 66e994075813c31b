import Sequencer
import StageRuntime
import Support
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The package's executables, which are built beside the test bundle.
enum Executables {
  /// Where the running test bundle lies.
  static let folder: String = {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    let path = String(
      decoding: buffer.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
      .joined(separator: "/")
  }()

  static let areBuilt = [
    "chiasm-gateway", "chiasm-vision", "chiasm-projector", "chiasm-language",
  ].allSatisfy { access("\(folder)/\($0)", X_OK) == 0 }

  static let comment: StaticString = "needs the executables beside the test bundle"

  /// The command that serves a stage over standard input and output.
  static func stage(
    _ name: String, _ layers: Range<Int>, next: String?, _ options: StageOptions
  ) -> String {
    let kind = name.split(separator: "-")[0]
    var words = [
      "'\(folder)/chiasm-\(kind)'", "--model", "'\(options.model)'", "--stdio",
      "--threads", "\(options.threads)", "--log-level", "error",
    ]
    if kind != "projector" {
      words += ["--layers", "\(layers.lowerBound)-\(layers.upperBound - 1)"]
    }
    if kind == "language" { words += ["--cache-tokens", "\(options.cacheTokens)"] }
    if let next { words += ["--next", "'\(next)'"] }
    return words.joined(separator: " ")
  }

  /// The command that serves a gateway over standard input and output.
  static func gateway(_ model: GoldenModel, _ addresses: StageAddresses) -> String {
    func list(_ endpoints: [Endpoint]) -> String {
      "'\(endpoints.map(\.description).joined(separator: ","))'"
    }
    return [
      "'\(folder)/chiasm-gateway'", "--model", "'\(model.folder)'", "--stdio",
      "--log-level", "error", "--vision", list(addresses.vision),
      "--projector", list([addresses.projector]), "--language", list(addresses.language),
    ].joined(separator: " ")
  }
}
