import Support
import Tensors
import Testing

@testable import Checkpoint

/// Damaged and random input: anything may be thrown, nothing may crash.
@Suite struct HostileInputTests {
  private static func mutated(_ bytes: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
    var bytes = bytes
    let interesting = Array("{}[]\",:0123456789-eE.\\untf \u{0}".utf8) + [0x80, 0xFF, 0xC3, 0xED]
    for _ in 0..<Int.random(in: 1...6, using: &generator) where !bytes.isEmpty {
      let place = Int.random(in: 0..<bytes.count, using: &generator)
      switch Int.random(in: 0..<6, using: &generator) {
      case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
      case 1: bytes[place] = interesting[Int.random(in: 0..<interesting.count, using: &generator)]
      case 2: bytes.remove(at: place)
      case 3:
        bytes.insert(
          interesting[Int.random(in: 0..<interesting.count, using: &generator)], at: place)
      case 4:
        let end = min(bytes.count, place + Int.random(in: 1...40, using: &generator))
        let other = Int.random(in: 0..<bytes.count, using: &generator)
        bytes.insert(contentsOf: Array(bytes[place..<end]), at: other)
      default: bytes.removeSubrange(place..<min(bytes.count, place + 8))
      }
    }
    return bytes
  }

  private static func readHeader(_ bytes: [UInt8], dataByteCount: Int) -> Bool {
    do {
      let header = try SafetensorsHeader(bytes, dataByteCount: dataByteCount, file: "f")
      for entry in header.entries.values {
        #expect(entry.begin >= 0 && entry.begin <= entry.end && entry.end <= dataByteCount)
      }
      return true
    } catch {
      #expect(error is CheckpointError && !"\(error)".isEmpty)
      return false
    }
  }

  @Test func `random bytes are no header`() {
    var generator = SeededGenerator(1)
    for _ in 0..<5000 {
      let count = Int.random(in: 0...200, using: &generator)
      let tail = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      #expect(!Self.readHeader([0x7B] + tail, dataByteCount: 100))
    }
  }

  @Test func `a damaged header is refused or still true`() {
    let text =
      #"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"#
      + #""b\u00e9\n":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"#
      + #""c":{"dtype":"I64","shape":[],"data_offsets":[32,40]}}"#
    let header = Array(text.utf8)
    #expect(Self.readHeader(header, dataByteCount: 40))
    var generator = SeededGenerator(2)
    for _ in 0..<20_000 {
      _ = Self.readHeader(Self.mutated(header, &generator), dataByteCount: 40)
    }
  }

  @Test func `a damaged file is refused or still readable to its end`() throws {
    let folder = try TemporaryFolder()
    let header =
      #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}"#
    let whole = safetensors(header, data: [UInt8](1...11))
    var generator = SeededGenerator(3)
    for _ in 0..<300 {
      let path = try folder.write("f", Self.mutated(whole, &generator))
      do {
        let file = try SafetensorsFile(path: path)
        for name in file.names { _ = try file.tensor(name).floatsOrBytes }
      } catch {
        #expect(error is CheckpointError)
      }
    }
  }

  @Test func `a damaged configuration is refused or still sane`() throws {
    let text = try readFile(
      Fixtures.path("variants/rope-llama3/checkpoint/config.json"), limit: 1 << 20)
    var generator = SeededGenerator(4)
    for _ in 0..<1500 {
      do {
        let configuration = try ModelConfiguration(Self.mutated(text, &generator), file: "f")
        #expect(configuration.imageTokenCount > 0 && configuration.language.headSize > 1)
        #expect(configuration.usedVisionLayers <= configuration.vision.layerCount)
      } catch {
        #expect(error is CheckpointError)
      }
    }
  }

  @Test func `values of any kind at any key are refused or sane`() throws {
    let path = Fixtures.path("golden/v12-tiny/checkpoint/config.json")
    let whole = try JSONValue.parse(readFile(path, limit: 1 << 20), file: path)
    let values: [JSONValue] = [
      .null, .boolean(true), .integer(-1), .integer(0), .integer(1), .integer(.max),
      .integer(.min), .number(0.5), .number(1e308), .number(-1e308), .string(""), .array([]),
      .object([]), .array([.null]), .array([.integer(.max)]),
    ]
    func replacing(_ value: JSONValue, _ key: String, in object: JSONValue) -> JSONValue {
      guard case .object(let members) = object else { return object }
      return .object(members.map { ($0.0, $0.0 == key ? value : replacing(value, key, in: $0.1)) })
    }
    func keys(_ value: JSONValue) -> [String] {
      guard case .object(let members) = value else { return [] }
      return members.flatMap { [$0.0] + keys($0.1) }
    }
    for key in Set(keys(whole)).sorted() {
      for value in values {
        let text = replacing(value, key, in: whole).compactText
        do {
          let configuration = try ModelConfiguration(Array(text.utf8), file: "f")
          #expect(WeightNames.all(configuration).allSatisfy { !$0.shape.contains { $0 < 1 } })
        } catch {
          #expect(error is CheckpointError)
        }
      }
    }
  }
}

extension Tensor {
  /// Touches every byte.
  fileprivate var floatsOrBytes: Int {
    withExtendedLifetime(storage) {
      UnsafeRawBufferPointer(start: baseAddress, count: byteCount).reduce(0) { $0 + Int($1) }
    }
  }
}
