#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Foundation
#endif

/// Writes an event file that TensorBoard reads.
///
/// Every call is one record in the file before it returns, so that a run that is killed loses
/// nothing it has shown. Owned by one task.
public final class TensorBoardWriter {
  public let path: String
  private let file: Int32

  /// Creates `events.out.tfevents.<seconds>.<host>.<process>.<n>` in a folder, which is made if
  /// need be.
  ///
  /// - Parameter now: seconds since 1970.
  /// - Throws: ``TrainingError/cannotWrite(path:reason:)``.
  public init(directory: String, now: Double = TensorBoardWriter.clock()) throws {
    try TensorBoardWriter.makeDirectory(directory)
    let seconds = String(Int64(now))
    let padded = String(repeating: "0", count: max(0, 10 - seconds.count)) + seconds
    let stem = "\(directory)/events.out.tfevents.\(padded).\(TensorBoardWriter.host).\(getpid())"
    // A second run within the second must not write into the first one's file.
    for number in 0..<1000 {
      let path = "\(stem).\(number)"
      let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o644)
      if file >= 0 {
        self.path = path
        self.file = file
        try write(Event.record(Event.version(time: now)))
        return
      }
      guard errno == EEXIST else { throw TensorBoardWriter.failure(path) }
    }
    throw TrainingError.cannotWrite(path: stem, reason: "a thousand files of that name exist")
  }

  deinit {
    close(file)
  }

  /// Adds scalars of one step, as one event.
  ///
  /// - Throws: ``TrainingError/cannotWrite(path:reason:)``.
  public func write(
    _ scalars: [(tag: String, value: Double)], step: Int, now: Double = TensorBoardWriter.clock()
  ) throws {
    try write(Event.record(Event.scalars(scalars, step: step, time: now)))
  }

  /// Adds a step of the log, under Hugging Face's names.
  public func write(_ log: TrainingLog, now: Double = TensorBoardWriter.clock()) throws {
    try write(log.scalars, step: log.step, now: now)
  }

  /// Seconds since 1970.
  public static func clock() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
  }

  /// Writes a record, or nothing.
  private func write(_ bytes: [UInt8]) throws {
    let end = lseek(file, 0, SEEK_END)
    do {
      try writeAll(bytes)
    } catch {
      if end >= 0 { ftruncate(file, end) }
      throw error
    }
  }

  private func writeAll(_ bytes: [UInt8]) throws {
    try bytes.withUnsafeBytes { buffer in
      var rest = buffer[...]
      while !rest.isEmpty {
        #if canImport(Glibc)
          let count = Glibc.write(file, rest.rebased, rest.count)
        #elseif canImport(Musl)
          let count = Musl.write(file, rest.rebased, rest.count)
        #else
          let count = Foundation.write(file, rest.rebased, rest.count)
        #endif
        if count < 0 {
          if errno == EINTR { continue }
          throw TensorBoardWriter.failure(path)
        }
        rest = rest.dropFirst(count)
      }
    }
  }

  private static func failure(_ path: String) -> TrainingError {
    errno == ENOSPC || errno == EDQUOT
      ? .diskFull(path: path)
      : .cannotWrite(path: path, reason: String(cString: strerror(errno)))
  }

  private static func makeDirectory(_ path: String) throws {
    var partial = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      partial += partial.isEmpty || partial == "/" ? String(part) : "/" + part
      if mkdir(partial, 0o755) != 0, errno != EEXIST {
        // A folder above may be closed to us and exist all the same.
        var status = stat()
        guard stat(partial, &status) == 0 else { throw failure(partial) }
      }
    }
  }

  private static var host: String {
    var name = [CChar](repeating: 0, count: 256)
    guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
    let bytes = name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    let text = String(decoding: bytes, as: UTF8.self).filter { $0 != "/" }
    return text.isEmpty ? "localhost" : text
  }
}

extension Slice where Base == UnsafeRawBufferPointer {
  fileprivate var rebased: UnsafeRawPointer? { UnsafeRawBufferPointer(rebasing: self).baseAddress }
}

extension TensorBoardWriter {
  /// Messages of TensorFlow's event.proto and summary.proto, and TFRecord's frame around them.
  enum Event {
    /// The first record of every file.
    static func version(time: Double) -> [UInt8] {
      var event = ProtobufBytes()
      event.double(1, time)
      event.text(3, "brain.Event:2")
      return event.bytes
    }

    static func scalars(
      _ scalars: [(tag: String, value: Double)], step: Int, time: Double
    ) -> [UInt8] {
      var summary = ProtobufBytes()
      for (tag, value) in scalars {
        var entry = ProtobufBytes()
        entry.text(1, tag)
        entry.float(2, Float(value))
        summary.message(1, entry)
      }
      return event(summary, step: step, time: time)
    }

    private static func event(_ summary: ProtobufBytes, step: Int, time: Double) -> [UInt8] {
      var event = ProtobufBytes()
      event.double(1, time)
      event.integer(2, step)
      event.message(5, summary)
      return event.bytes
    }

    /// Length, its checksum, the payload, its checksum; all little-endian.
    static func record(_ payload: [UInt8]) -> [UInt8] {
      let length = littleEndian(UInt64(payload.count))
      return length + littleEndian(CRC32C.masked(length)) + payload
        + littleEndian(CRC32C.masked(payload))
    }

    private static func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
      withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }
  }
}
