import Messages
import Transport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// A file by which the gateway lets a stage find out whether both write checkpoints to the same
/// folder.
enum SharedFile {
  /// - Throws: FAILED_PRECONDITION when the file is not there, or its folder cannot be written to;
  ///   INVALID_ARGUMENT for a path that is not absolute.
  static func require(_ path: String) throws(RPCError) {
    guard path.hasPrefix("/"), let slash = path.lastIndex(of: "/") else {
      throw RPCError(.invalidArgument, "\"\(path)\" is not an absolute path")
    }
    let folder = String(path[..<slash])
    guard access(path, F_OK) == 0 else {
      throw RPCError(
        .failedPrecondition,
        "this stage does not see what the gateway writes to \(folder) "
          + "(\(String(cString: strerror(errno)))), where its share of checkpoints has to go; give "
          + "an output folder that all processes have at the same path")
    }
    guard access(folder.isEmpty ? "/" : folder, W_OK | X_OK) == 0 else {
      throw RPCError(
        .failedPrecondition,
        "this stage may not write to \(folder) (\(String(cString: strerror(errno)))), where its "
          + "share of checkpoints has to go; let it, or give another output folder")
    }
  }
}
