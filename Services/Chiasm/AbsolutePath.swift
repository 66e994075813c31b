#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Paths that mean the same to every process of a mesh.
enum AbsolutePath {
  /// The path from the root; an empty one stays so.
  static func of(_ path: String) -> String {
    guard !path.isEmpty, !path.hasPrefix("/") else { return path }
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    guard getcwd(&buffer, buffer.count) != nil else { return path }
    let folder = String(
      decoding: buffer.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    return folder == "/" ? "/" + path : folder + "/" + path
  }
}
