import CPlatform
import Glibc

/// Reads small files of unknown origin.
enum BoundedFile {
  /// At most one byte past `limit`, so that the caller can tell a file that is too large.
  ///
  /// - Throws: ``MeshError/unreadableFile(path:reason:)``.
  static func read(_ path: String, limit: Int) throws(MeshError) -> [UInt8] {
    // Without O_NONBLOCK, a named pipe would wait for a writer.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw .unreadableFile(path: path, reason: SystemReason.text(errno))
    }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count <= limit {
      let wanted = min(chunk.count, limit + 1 - bytes.count)
      let count = Glibc.read(descriptor, &chunk, wanted)
      if count == 0 { break }
      if count < 0 {
        if errno == EINTR { continue }
        throw .unreadableFile(path: path, reason: SystemReason.text(errno))
      }
      bytes += chunk[..<count]
    }
    return bytes
  }
}

/// The system's words for an error number.
enum SystemReason {
  static func text(_ code: Int32) -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    chiasm_error_text(code, &buffer, buffer.count)
    return buffer.withUnsafeBufferPointer { characters in
      String(
        decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }
}
