import Messages
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Takes frames apart that come from outside. Used by one thread.
///
/// Memory follows the bytes that arrived, never a length that was only announced: the buffer
/// grows by doubling, and the pages of a tensor are committed when its bytes are written.
struct FrameReader: ~Copyable {
  /// What bytes come from.
  protocol Source {
    /// Blocks until some bytes are there.
    /// - Returns: their number, at least 1.
    func read(
      into buffer: UnsafeMutableRawBufferPointer, passed: inout [Descriptor]
    ) throws -> Int
  }

  private let options: ConnectionOptions
  private var buffer: UnsafeMutableRawBufferPointer
  private var start = 0
  private var end = 0
  private var passed: [Descriptor] = []

  init(options: ConnectionOptions) {
    self.options = options
    buffer = .allocate(byteCount: FrameReader.usualBytes, alignment: 16)
  }

  deinit { buffer.deallocate() }

  /// Whether all bytes read so far were used.
  var isDrained: Bool { start == end }

  /// Blocks until a whole head is there.
  /// - Throws: ``WireViolation``, or what the source throws.
  mutating func head<S: Source>(from source: S) throws -> Frame {
    if start == end, !passed.isEmpty { throw WireViolation.descriptors }
    try need(5, from: source)
    guard buffer[start] == 0 else { throw WireViolation.flag(buffer[start]) }
    var length = 0
    for index in 1...4 { length = length << 8 | Int(buffer[start + index]) }
    guard length <= options.maximumHeadBytes else {
      throw WireViolation.headTooLong(length, limit: options.maximumHeadBytes)
    }
    try need(5 + length, from: source)
    let bytes = UnsafeRawBufferPointer(rebasing: buffer[start + 5..<start + 5 + length])
    let frame: Frame
    do {
      frame = try Frame.decode(bytes)
    } catch let error as MessagesError {
      throw WireViolation.undecodable(error)
    }
    start += 5 + length
    try check(frame.tensors)
    return frame
  }

  /// The descriptor that came with an arena.
  mutating func takeDescriptor() throws -> Descriptor {
    guard passed.count == 1 else {
      throw passed.isEmpty ? WireViolation.arenaWithoutDescriptor : WireViolation.descriptors
    }
    return passed.removeLast()
  }

  /// Blocks until the elements that follow the head are there.
  mutating func inlineTensor<S: Source>(_ reference: TensorRef, from source: S) throws -> Tensor {
    let storage = try FrameReader.storage(reference.byteCount)
    let target = UnsafeMutableRawBufferPointer(start: storage.base, count: reference.byteCount)
    let buffered = min(end - start, target.count)
    if buffered > 0 {
      UnsafeMutableRawBufferPointer(rebasing: target[..<buffered]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: buffer[start..<start + buffered]))
      start += buffered
    }
    var filled = buffered
    while filled < target.count {
      let part = UnsafeMutableRawBufferPointer(
        rebasing: target[filled..<min(target.count, filled + FrameReader.largestRead)])
      filled += try source.read(into: part, passed: &passed)
    }
    return try Tensor(reference.scalarType, reference.shape, storage: storage)
  }

  private func check(_ tensors: [TensorRef]) throws {
    guard tensors.count <= options.maximumTensors else {
      throw WireViolation.tooManyTensors(tensors.count, limit: options.maximumTensors)
    }
    var inline = 0
    for tensor in tensors {
      guard tensor.shape.count <= Connection.maximumRank else {
        throw WireViolation.rank(tensor.shape.count)
      }
      var byteCount = tensor.scalarType.byteCount
      for dimension in tensor.shape {
        let (product, overflow) = byteCount.multipliedReportingOverflow(by: dimension)
        guard !overflow else {
          throw WireViolation.byteCount(tensor.byteCount, shape: tensor.shape)
        }
        byteCount = product
      }
      guard byteCount == tensor.byteCount else {
        throw WireViolation.byteCount(tensor.byteCount, shape: tensor.shape)
      }
      guard tensor.arenaOffset == nil else { continue }
      guard byteCount <= options.maximumInlineBytes - inline else {
        throw WireViolation.inlineBytes(
          inline.addingReportingOverflow(byteCount).partialValue, limit: options.maximumInlineBytes)
      }
      inline += byteCount
    }
  }

  /// Makes the buffer hold at least `count` bytes from `start` on.
  private mutating func need<S: Source>(_ count: Int, from source: S) throws {
    if start == end {
      start = 0
      end = 0
      // A rare large head shall not keep its memory.
      if buffer.count > FrameReader.keptBytes { resize(to: FrameReader.usualBytes) }
    }
    while end - start < count {
      if start > 0, start + count > buffer.count { resize(to: buffer.count) }
      if end == buffer.count { resize(to: min(2 * buffer.count, max(count, buffer.count + 1))) }
      end += try source.read(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[end...]), passed: &passed)
    }
  }

  /// Moves the unused bytes to the front of a buffer of `byteCount` bytes.
  private mutating func resize(to byteCount: Int) {
    let unused = UnsafeRawBufferPointer(rebasing: buffer[start..<end])
    if byteCount == buffer.count {
      buffer.copyMemory(from: unused)
    } else {
      let next = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 16)
      next.copyMemory(from: unused)
      buffer.deallocate()
      buffer = next
    }
    (start, end) = (0, end - start)
  }

  /// Room for a tensor whose bytes are yet to come. Large ones are mapped, so that a length
  /// alone costs no memory, and a refusal is no crash.
  private static func storage(_ byteCount: Int) throws -> Storage {
    guard byteCount >= mappedBytes else { return Storage(uninitialized: byteCount) }
    guard
      let base = mmap(
        nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
      base != MAP_FAILED
    else { throw WireViolation.outOfMemory(byteCount) }
    let address = UInt(bitPattern: base)
    return Storage(base: base, byteCount: byteCount) {
      munmap(UnsafeMutableRawPointer(bitPattern: address), byteCount)
    }
  }

  private static let usualBytes = 64 << 10
  private static let keptBytes = 256 << 10
  private static let mappedBytes = 256 << 10
  private static let largestRead = 8 << 20
}
