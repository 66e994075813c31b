import CCrypto
import Dispatch
import Synchronization

/// SHA-256 (FIPS 180-4), by which processes of a mesh agree that they hold the same files.
public enum Digest {
  /// The digest in lower-case hexadecimal.
  public static func sha256(_ bytes: UnsafeRawBufferPointer) -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    let done = EVP_Digest(bytes.baseAddress, bytes.count, &digest, nil, EVP_sha256(), nil)
    precondition(done == 1, "SHA-256 is not available in this build of libcrypto")
    return hexadecimal(digest)
  }

  public static func sha256(_ bytes: [UInt8]) -> String {
    bytes.withUnsafeBytes { sha256($0) }
  }

  /// The digest of a file's contents, read piece by piece.
  ///
  /// - Parameter isCancelled: asked before every piece.
  /// - Throws: ``CheckpointError`` when the file cannot be read; `CancellationError`.
  public static func sha256(
    file path: String, isCancelled: () -> Bool = { false }
  ) throws -> String {
    let file = try OpenFile(reading: path)
    let context = EVP_MD_CTX_new()
    defer { EVP_MD_CTX_free(context) }
    var done = EVP_DigestInit_ex(context, EVP_sha256(), nil)
    let piece = 1 << 20
    for offset in stride(from: 0, to: file.byteCount, by: piece) {
      if isCancelled() { throw CancellationError() }
      let bytes = try file.bytes(at: offset, count: min(piece, file.byteCount - offset))
      done &= EVP_DigestUpdate(context, bytes, bytes.count)
    }
    var digest = [UInt8](repeating: 0, count: 32)
    done &= EVP_DigestFinal_ex(context, &digest, nil)
    precondition(done == 1, "SHA-256 is not available in this build of libcrypto")
    return hexadecimal(digest)
  }

  /// The digests of several files, of as many at a time as there are cores, in their order.
  ///
  /// - Throws: what ``sha256(file:isCancelled:)`` throws; one error that fails ends all.
  static func sha256(
    files paths: [String], isCancelled: @Sendable () -> Bool = { false }
  ) throws -> [String] {
    // The longest work begins first.
    let sizes = try paths.map { try OpenFile(reading: $0).byteCount }
    let order = paths.indices.sorted { sizes[$0] > sizes[$1] }
    let digests = Mutex([String](repeating: "", count: paths.count))
    let failure = Mutex<(any Error)?>(nil)
    withoutActuallyEscaping(isCancelled) { isCancelled in
      DispatchQueue.concurrentPerform(iterations: order.count) { place in
        let index = order[place]
        do {
          let digest = try sha256(file: paths[index]) {
            isCancelled() || failure.withLock { $0 != nil }
          }
          digests.withLock { $0[index] = digest }
        } catch {
          failure.withLock { $0 = $0 ?? error }
        }
      }
    }
    if let error = failure.withLock({ $0 }) { throw error }
    return digests.withLock { $0 }
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for byte in bytes {
      text.append(digits[Int(byte >> 4)])
      text.append(digits[Int(byte & 15)])
    }
    return String(decoding: text, as: UTF8.self)
  }
}
