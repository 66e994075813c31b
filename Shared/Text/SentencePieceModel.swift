import CSentencePiece

/// A SentencePiece byte-pair model (arXiv:1808.06226): the contents of a tokenizer.model.
///
/// Pieces are UTF-8 bytes throughout: two Swift strings are equal when they are canonically
/// equivalent, two pieces only when their bytes are.
final class SentencePieceModel: @unchecked Sendable {  // the C++ model never changes once open
  enum Kind: Int32 {
    case normal = 1
    case unknown, control, userDefined, unused, byte
  }

  struct Piece {
    var bytes: [UInt8]
    var id: Int
  }

  /// Largest tokenizer.model read, in bytes; Llama 3's successors stay below 10 MB.
  static let maximumFileBytes = 64 << 20

  /// Indexed by id.
  let pieces: [[UInt8]]
  let kinds: [Kind]
  /// What unknown tokens decode to.
  let unknownSurface: [UInt8]
  /// Decoding takes one space off the front of a text.
  let stripsLeadingSpace: Bool
  let removesExtraWhitespaces: Bool

  private let model: OpaquePointer
  private let ids: [[UInt8]: Int]
  private let unknownID: Int

  /// - Parameters:
  ///   - contents: the bytes of a tokenizer.model.
  ///   - path: names the file in errors.
  ///   - addsDummyPrefix: false opens the model with `add_dummy_prefix` off, whatever it says.
  /// - Throws: ``TextError/invalidModel(path:reason:)``.
  init(contents: [UInt8], path: String, addsDummyPrefix: Bool) throws {
    var message = [CChar](repeating: 0, count: 256)
    let opened = csp_open(
      contents, contents.count, addsDummyPrefix ? 0 : 1, &message, message.count)
    guard let opened else {
      throw TextError.invalidModel(path: path, reason: Self.text(of: message))
    }
    model = opened
    let traits = csp_describe(opened)
    unknownSurface = Self.bytes(traits.unknown_surface, traits.unknown_surface_size)
    removesExtraWhitespaces = traits.removes_extra_whitespaces != 0
    stripsLeadingSpace = traits.adds_dummy_prefix != 0 || removesExtraWhitespaces

    var pieces: [[UInt8]] = []
    var kinds: [Kind] = []
    var ids: [[UInt8]: Int] = [:]
    var reserved: [[UInt8]: Int] = [:]
    var unknownID = 0
    for id in 0..<traits.piece_count {
      var size = 0
      var type: Int32 = 0
      guard let start = csp_piece(opened, id, &size, &type) else { break }
      let piece = Self.bytes(start, size)
      let kind = Kind(rawValue: type) ?? .normal
      pieces.append(piece)
      kinds.append(kind)
      switch kind {
      case .normal, .userDefined, .unused: ids[piece] = Int(id)
      case .control, .byte: reserved[piece] = Int(id)
      case .unknown:
        reserved[piece] = Int(id)
        unknownID = Int(id)
      }
    }
    self.pieces = pieces
    self.kinds = kinds
    self.unknownID = unknownID
    // The library looks a piece up among the reserved ones first.
    self.ids = ids.merging(reserved) { $1 }
  }

  deinit { csp_close(model) }

  /// The id of a piece; the unknown token's when the model does not have it.
  func id(of piece: [UInt8]) -> Int { ids[piece] ?? unknownID }

  func knows(_ piece: [UInt8]) -> Bool { ids[piece] != nil }

  /// - Throws: ``TextError/encodingFailed(reason:)``.
  func encode(_ text: some Collection<UInt8>) throws -> [Piece] {
    var message = [CChar](repeating: 0, count: 256)
    var encoding = csp_encoding()
    let bytes = Array(text)
    let status = bytes.withUnsafeBytes { buffer in
      csp_encode(
        model, buffer.baseAddress?.assumingMemoryBound(to: CChar.self), buffer.count, &encoding,
        &message, message.count)
    }
    defer { csp_encoding_free(&encoding) }
    guard status == 0 else { throw TextError.encodingFailed(reason: Self.text(of: message)) }
    var pieces: [Piece] = []
    pieces.reserveCapacity(encoding.count)
    var start = 0
    for index in 0..<encoding.count {
      let end = encoding.ends[index]
      let piece = Self.bytes(encoding.bytes + start, end - start)
      let id = Int(encoding.ids[index])
      // A run of unknown characters comes back as one piece, which may be spelt like a known one.
      pieces.append(Piece(bytes: piece, id: kinds[id] == .unknown ? self.id(of: piece) : id))
      start = end
    }
    return pieces
  }

  private static func bytes(_ start: UnsafePointer<CChar>?, _ count: Int) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: start, count: count))
  }

  private static func text(of message: [CChar]) -> String {
    String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
