#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif
import Messages
import Sequencer
import Tensors
import Transport

/// Finds the picture that an `image_url` means: in the address itself (`data:`), or in a file under
/// a folder that was opened for it (`file:`).
struct PictureSource: Sendable {
  var folder: String?
  var byteLimit = GatewayLimits().pictureBytes

  /// - Throws: 400 for an address that holds no picture, 403 for one that may not be read.
  func picture(_ url: String) throws -> Attachment {
    if url.hasPrefix("data:") { return try inline(url) }
    if url.hasPrefix("file:") { return try file(url) }
    throw APIError(
      .badRequest,
      "a picture's address must begin with data: (data:image/png;base64,…) or file:; this gateway "
        + "fetches nothing over the network")
  }

  /// RFC 2397, base64 only.
  private func inline(_ url: String) throws -> Attachment {
    guard let comma = url.utf8.firstIndex(of: UInt8(ascii: ",")),
      url[..<comma].hasSuffix(";base64")
    else {
      throw APIError(.badRequest, "a data: address must be data:image/…;base64,…")
    }
    let encoded = url[url.utf8.index(after: comma)...]
    guard encoded.utf8.count / 4 * 3 <= byteLimit else {
      throw APIError(
        .contentTooLarge,
        "a picture of about \(encoded.utf8.count / 4 * 3) bytes, at most \(byteLimit) are taken")
    }
    guard !encoded.isEmpty, let bytes = Data(base64Encoded: String(encoded)) else {
      throw APIError(.badRequest, "the data: address holds no valid base64")
    }
    let tensor = Tensor(uninitialized: .uint8, [bytes.count])
    bytes.withUnsafeBytes {
      UnsafeMutableRawBufferPointer(start: tensor.baseAddress, count: bytes.count).copyMemory(
        from: $0)
    }
    return Attachment(tensor, name: "picture")
  }

  private func file(_ url: String) throws -> Attachment {
    guard let folder else {
      throw APIError(
        .forbidden,
        "file: pictures are not allowed here; start the gateway with "
          + "--allowed-local-media-path, or send the picture as a data: address")
    }
    let path = url.hasPrefix("file://") ? String(url.dropFirst(7)) : String(url.dropFirst(5))
    guard path.hasPrefix("/"), let path = Self.decoded(path),
      let real = Self.realPath(path), let root = Self.realPath(folder),
      real.hasPrefix(root == "/" ? root : root + "/")
    else {
      // The same words for what does not exist: which files there are is nobody's business.
      throw APIError(.forbidden, "\(url) is no file under the folder that is open to requests")
    }
    return try PictureFile.read(real, limit: byteLimit)
  }

  /// Without percent signs (RFC 3986, section 2.1); nil when what follows one is no byte.
  private static func decoded(_ path: String) -> String? {
    var bytes: [UInt8] = []
    var rest = Array(path.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      let digits = String(decoding: rest.prefix(2), as: UTF8.self)
      guard digits.utf8.count == 2, digits.first != "+", let value = UInt8(digits, radix: 16) else {
        return nil
      }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return String(validating: bytes, as: UTF8.self)
  }

  /// The path with every link followed, so that none leads out of the folder.
  private static func realPath(_ path: String) -> String? {
    guard !path.utf8.contains(0), let real = realpath(path, nil) else { return nil }
    defer { free(real) }
    return String(cString: real)
  }
}
