/// A file of one JSON value a line, of which only the places of the lines are kept in memory.
public final class JSONLinesFile: Sendable {
  /// Longest line that is read.
  public static let maximumLineBytes = 4 << 20
  public static let maximumLines = 1 << 28

  public enum Line: Sendable, Equatable {
    /// Nothing but white space.
    case empty
    case tooLong(bytes: Int)
    case text([UInt8])
  }

  public let path: String
  private let file: DataFile
  /// Where each line begins, and where one after the last would.
  private let starts: [Int]

  /// Walks over the file once, in blocks, to find its lines.
  ///
  /// - Throws: ``TrainingDataError``.
  public init(path: String) throws {
    self.path = path
    var starts = [0]
    do {
      file = try DataFile(path)
      var offset = 0
      while offset < file.byteCount {
        let block = try file.bytes(at: offset, count: min(1 << 20, file.byteCount - offset))
        guard !block.isEmpty else { throw TrainingDataError.changedFile(path: path) }
        block.withUnsafeBufferPointer { block in
          for index in block.indices where block[index] == 0x0A {
            starts.append(offset + index + 1)
          }
        }
        guard starts.count <= JSONLinesFile.maximumLines else {
          throw TrainingDataError.oversizedFile(
            path: path, found: starts.count, limit: JSONLinesFile.maximumLines, unit: "lines")
        }
        offset += block.count
      }
    } catch DataFile.Failure.missing {
      throw TrainingDataError.unreadableFile(path: path, reason: "there is no such file")
    } catch DataFile.Failure.unreadable(let reason) {
      throw TrainingDataError.unreadableFile(path: path, reason: reason)
    }
    // The last line may lack its end.
    if starts[starts.count - 1] < file.byteCount { starts.append(file.byteCount) }
    self.starts = starts
  }

  public var count: Int { starts.count - 1 }

  /// A line, counted from 0, without its end.
  ///
  /// - Throws: ``TrainingDataError``.
  public func line(_ index: Int) throws -> Line {
    var length = starts[index + 1] - starts[index]
    guard length <= JSONLinesFile.maximumLineBytes else { return .tooLong(bytes: length) }
    guard file.isUnchanged else { throw TrainingDataError.changedFile(path: path) }
    var bytes: [UInt8]
    do {
      bytes = try file.bytes(at: starts[index], count: length)
    } catch DataFile.Failure.unreadable(let reason) {
      throw TrainingDataError.unreadableFile(path: path, reason: reason)
    }
    guard bytes.count == length else { throw TrainingDataError.changedFile(path: path) }
    while let last = bytes.last, last == 0x0A || last == 0x0D {
      bytes.removeLast()
      length -= 1
    }
    let isBlank = bytes.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0D }
    return isBlank ? .empty : .text(bytes)
  }
}
