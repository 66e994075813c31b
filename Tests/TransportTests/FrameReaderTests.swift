import Messages
import Tensors
import Testing

@testable import Transport

/// Bytes that come in pieces of random length.
private final class Bytes: FrameReader.Source {
  struct End: Error {}
  private var bytes: ArraySlice<UInt8>
  private var generator: SeededGenerator

  init(_ bytes: [UInt8], seed: UInt64) {
    self.bytes = bytes[...]
    generator = SeededGenerator(seed: seed)
  }

  func read(
    into buffer: UnsafeMutableRawBufferPointer, passed: inout [Descriptor]
  ) throws -> Int {
    guard !bytes.isEmpty else { throw End() }
    let limit = min(buffer.count, bytes.count)
    let count = Int.random(in: 1...limit, using: &generator)
    for (index, byte) in bytes.prefix(count).enumerated() { buffer[index] = byte }
    bytes = bytes.dropFirst(count)
    return count
  }
}

@Suite(.timeLimit(.minutes(2))) struct FrameReaderTests {
  private static func encode(_ frame: Frame) -> [UInt8] {
    let head = frame.encoded()
    return [0] + (0..<4).map { UInt8(truncatingIfNeeded: head.count >> (24 - 8 * $0)) } + head
  }

  /// Reads to the end.
  private static func read(
    _ bytes: [UInt8], seed: UInt64
  ) -> (frames: [Frame], tensors: [Tensor], end: any Error) {
    let source = Bytes(bytes, seed: seed)
    var options = ConnectionOptions()
    options.maximumInlineBytes = 1 << 20
    var reader = FrameReader(options: options)
    var frames: [Frame] = []
    var tensors: [Tensor] = []
    do {
      while true {
        let frame = try reader.head(from: source)
        frames.append(frame)
        for reference in frame.tensors where reference.arenaOffset == nil {
          tensors.append(try reader.inlineTensor(reference, from: source))
        }
      }
    } catch {
      return (frames, tensors, error)
    }
  }

  private static let sample: [Frame] = [
    Frame(kind: .hello, version: 1, acceptsArena: true, streamWindow: 64),
    Frame(
      kind: .request, call: 3, method: "chiasm.v1.LanguageModel/Step", timeoutMicroseconds: 10,
      message: Array(repeating: 7, count: 7_000)),
    Frame(
      kind: .status, call: 3, status: CallStatus(code: .ok), message: [1],
      tensors: [
        TensorRef(scalarType: .uint8, shape: [5], byteCount: 5),
        TensorRef(scalarType: .float32, shape: [2, 0], byteCount: 0),
        TensorRef(scalarType: .uint8, shape: [8], byteCount: 8, arenaOffset: 64),
        TensorRef(scalarType: .float32, shape: [1000, 9], byteCount: 36_000),
      ]),
    Frame(kind: .release, released: [1, 2, 3]), Frame(kind: .goAway),
  ]

  private static var sampleBytes: [UInt8] {
    sample.flatMap { frame in
      encode(frame)
        + frame.tensors.filter { $0.arenaOffset == nil }.flatMap {
          (0..<$0.byteCount).map { UInt8(truncatingIfNeeded: $0) }
        }
    }
  }

  @Test("frames come out whole, in whatever pieces they come in", arguments: 0..<10)
  func pieces(seed: UInt64) {
    let (frames, tensors, end) = Self.read(Self.sampleBytes, seed: seed)
    #expect(frames == Self.sample)
    #expect(tensors.map(\.byteCount) == [5, 0, 36_000])
    #expect(
      tensors[2].storage.base.load(fromByteOffset: 35_999, as: UInt8.self)
        == UInt8(truncatingIfNeeded: 35_999))
    #expect(end is Bytes.End)
  }

  @Test("random bytes are refused or wait for more", arguments: 0..<20)
  func noise(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    for _ in 0..<50 {
      var bytes = (0..<Int.random(in: 0..<400, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      // Half of them with a length that makes sense.
      if Bool.random(using: &generator), bytes.count > 5 {
        bytes.replaceSubrange(0..<5, with: [0, 0, 0, 0, UInt8(min(bytes.count - 5, 255))])
      }
      let end = Self.read(bytes, seed: seed).end
      #expect(end is Bytes.End || end is WireViolation)
    }
  }

  @Test("damaged frames are refused, read otherwise, or wait for more", arguments: 0..<20)
  func damage(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let whole =
      Self.sample.filter { ($0.message?.count ?? 0) < 100 && $0.tensors.isEmpty }
      .flatMap { Self.encode($0) } + Self.encode(Self.sample[2])
    for _ in 0..<100 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        bytes[Int.random(in: bytes.indices, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      let end = Self.read(bytes, seed: seed).end
      #expect(end is Bytes.End || end is WireViolation)
    }
  }
}
