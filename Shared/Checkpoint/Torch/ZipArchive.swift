/// The entries of a zip archive as `torch.save` writes them: stored, never compressed
/// (APPNOTE 6.3.9, with its 64-bit extensions).
struct ZipArchive: Sendable {
  struct Entry: Sendable, Equatable {
    var byteCount: Int
    /// Where the entry's header begins in the file; its bytes follow.
    var headerOffset: Int
  }

  private(set) var entries: [String: Entry] = [:]

  private static let maximumEntries = 1 << 20
  private static let maximumDirectoryBytes = 256 << 20
  /// The end record and the longest comment.
  private static let maximumTail = 22 + 65_535

  /// Reads the directory at the end of a file.
  ///
  /// - Throws: ``CheckpointError/invalidArchive(file:reason:)`` and errors of reading.
  init(reading file: borrowing OpenFile) throws {
    let directory = try ZipArchive.directory(file)
    var cursor = ByteCursor(try file.bytes(at: directory.offset, count: directory.byteCount))
    for _ in 0..<directory.entryCount {
      let (name, entry) = try ZipArchive.entry(&cursor, file.path)
      guard entry.headerOffset <= file.byteCount, entry.byteCount <= file.byteCount else {
        throw ZipArchive.failure(file.path, "an entry lies behind its end")
      }
      guard entries.updateValue(entry, forKey: name) == nil else {
        throw CheckpointError.duplicateName(file: file.path, name: name)
      }
    }
    guard cursor.isAtEnd else {
      throw ZipArchive.failure(file.path, "its directory goes on after its entries")
    }
  }

  /// Where an entry's bytes begin.
  ///
  /// - Throws: ``CheckpointError/invalidArchive(file:reason:)`` when they are not all there.
  func offset(of entry: Entry, in file: borrowing OpenFile) throws -> Int {
    guard entry.headerOffset <= file.byteCount - 30 else {
      throw ZipArchive.failure(file.path, "an entry lies behind its end")
    }
    var header = ByteCursor(try file.bytes(at: entry.headerOffset, count: 30))
    guard try header.integer(4) == 0x0403_4B50, try header.skip(22),
      let name = try? header.integer(2), let extra = try? header.integer(2)
    else { throw ZipArchive.failure(file.path, "an entry has no header") }
    let start = entry.headerOffset + 30 + name + extra
    guard start <= file.byteCount, entry.byteCount <= file.byteCount - start else {
      throw ZipArchive.failure(file.path, "an entry lies behind its end")
    }
    return start
  }

  // MARK: Private

  private struct Directory {
    var offset: Int
    var byteCount: Int
    var entryCount: Int
  }

  private static func failure(_ file: String, _ reason: String) -> CheckpointError {
    .invalidArchive(file: file, reason: reason)
  }

  private static func directory(_ file: borrowing OpenFile) throws -> Directory {
    let tailCount = min(file.byteCount, maximumTail)
    let tail = try file.bytes(at: file.byteCount - tailCount, count: tailCount)
    let end = stride(from: tailCount - 22, through: 0, by: -1).first { start in
      tail[start] == 0x50 && tail[start + 1] == 0x4B && tail[start + 2] == 5
        && tail[start + 3] == 6
        && start + 22 + Int(tail[start + 20]) + Int(tail[start + 21]) << 8 == tailCount
    }
    guard let end else { throw failure(file.path, "it has no directory at its end") }
    var record = ByteCursor(Array(tail[end...]))
    try record.skip(8)
    _ = try record.integer(2)
    var directory = Directory(
      offset: 0, byteCount: 0, entryCount: try record.integer(2))
    directory.byteCount = try record.integer(4)
    directory.offset = try record.integer(4)
    let endOffset = file.byteCount - tailCount + end
    if let wide = try wideDirectory(file, endOffset) { directory = wide }
    guard directory.offset >= 0, directory.byteCount >= 0, directory.entryCount >= 0,
      directory.offset <= endOffset, directory.byteCount <= endOffset - directory.offset
    else { throw failure(file.path, "its directory lies behind its end") }
    guard directory.entryCount <= maximumEntries, directory.byteCount <= maximumDirectoryBytes
    else { throw failure(file.path, "more than \(maximumEntries) entries") }
    return directory
  }

  /// What the 64-bit record before the end says, if there is one.
  private static func wideDirectory(
    _ file: borrowing OpenFile, _ endOffset: Int
  ) throws -> Directory? {
    guard endOffset >= 20 else { return nil }
    var locator = ByteCursor(try file.bytes(at: endOffset - 20, count: 20))
    guard try locator.integer(4) == 0x0706_4B50 else { return nil }
    try locator.skip(4)
    let offset = try locator.integer(8)
    guard offset >= 0, offset <= endOffset - 56 else {
      throw failure(file.path, "its 64-bit directory lies behind its end")
    }
    var record = ByteCursor(try file.bytes(at: offset, count: 56))
    guard try record.integer(4) == 0x0606_4B50 else {
      throw failure(file.path, "its 64-bit directory is not where it should be")
    }
    try record.skip(28)
    let count = try record.integer(8)
    let bytes = try record.integer(8)
    return Directory(offset: try record.integer(8), byteCount: bytes, entryCount: count)
  }

  private static func entry(
    _ cursor: inout ByteCursor, _ file: String
  ) throws -> (String, Entry) {
    do {
      guard try cursor.integer(4) == 0x0201_4B50 else {
        throw failure(file, "its directory is damaged")
      }
      try cursor.skip(4)
      let flags = try cursor.integer(2)
      let method = try cursor.integer(2)
      try cursor.skip(8)
      let stored = try cursor.integer(4)
      var entry = Entry(byteCount: try cursor.integer(4), headerOffset: 0)
      let nameCount = try cursor.integer(2)
      let extraCount = try cursor.integer(2)
      let commentCount = try cursor.integer(2)
      try cursor.skip(8)
      entry.headerOffset = try cursor.integer(4)
      guard let name = String(validating: try cursor.bytes(nameCount), as: UTF8.self) else {
        throw failure(file, "the name of an entry is not UTF-8")
      }
      let storedWide = try widen(
        &entry, stored, ByteCursor(Array(try cursor.bytes(extraCount))))
      try cursor.skip(commentCount)
      guard flags & 1 == 0, method == 0, storedWide == entry.byteCount else {
        throw failure(file, "an entry is compressed or encrypted; PyTorch's are neither")
      }
      guard entry.byteCount >= 0, entry.headerOffset >= 0 else {
        throw failure(file, "an entry lies behind its end")
      }
      return (name, entry)
    } catch is ByteCursor.End {
      throw failure(file, "its directory is cut off")
    }
  }

  /// Fields that are all ones stand in the 64-bit extra field, in this order.
  private static func widen(
    _ entry: inout Entry, _ stored: Int, _ extra: ByteCursor
  ) throws -> Int {
    var extra = extra
    var stored = stored
    while !extra.isAtEnd {
      let kind = try extra.integer(2)
      var field = ByteCursor(Array(try extra.bytes(try extra.integer(2))))
      guard kind == 1 else { continue }
      if entry.byteCount == 0xFFFF_FFFF { entry.byteCount = try field.integer(8) }
      if stored == 0xFFFF_FFFF { stored = try field.integer(8) }
      if entry.headerOffset == 0xFFFF_FFFF { entry.headerOffset = try field.integer(8) }
    }
    return stored
  }
}

/// Reads little-endian integers from bytes.
struct ByteCursor {
  struct End: Error {}

  private let all: [UInt8]
  private(set) var offset = 0

  init(_ bytes: [UInt8]) { all = bytes }

  var isAtEnd: Bool { offset == all.count }
  var remaining: Int { all.count - offset }

  /// An integer of up to 8 bytes; one that is too large for `Int` is negative.
  mutating func integer(_ count: Int) throws -> Int {
    let bytes = try bytes(count)
    return Int(
      truncatingIfNeeded: bytes.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
  }

  mutating func bytes(_ count: Int) throws -> ArraySlice<UInt8> {
    guard count >= 0, count <= remaining else { throw End() }
    defer { offset += count }
    return all[offset..<offset + count]
  }

  @discardableResult
  mutating func skip(_ count: Int) throws -> Bool {
    _ = try bytes(count)
    return true
  }
}
