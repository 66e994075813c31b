import Foundation
import Testing

@testable import Training

@Suite struct TensorBoardWriterTests {
  private typealias Event = TensorBoardWriter.Event

  @Test("the checksum is Castagnoli's")
  func checksum() {
    // Of RFC 3720, B.4.
    #expect(CRC32C.checksum(Array("123456789".utf8)) == 0xE306_9283)
    #expect(CRC32C.checksum(Array(repeating: 0, count: 32)) == 0x8A91_36AA)
    #expect(CRC32C.checksum(Array(repeating: 0xFF, count: 32)) == 0x62A8_AB43)
    #expect(CRC32C.checksum(Array(0..<32)) == 0x46DD_794E)
    #expect(CRC32C.checksum([]) == 0)
    #expect(CRC32C.masked([]) == 0xA282_EAD8)
  }

  @Test("the first event says the version of the format")
  func version() {
    #expect(
      Event.version(time: 1.5)
        == [9, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x1A, 13] + Array("brain.Event:2".utf8))
  }

  @Test("scalars are a summary in an event")
  func scalars() {
    let value: [UInt8] = [0x0A, 1] + Array("a".utf8) + [0x15, 0, 0, 0x80, 0x3F]
    let summary: [UInt8] = [0x0A, UInt8(value.count)] + value
    let event: [UInt8] =
      [9, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x10, 0xAC, 0x02, 0x2A, UInt8(summary.count)] + summary
    #expect(Event.scalars([("a", 1)], step: 300, time: 1.5) == event)
  }

  @Test("a record is length, checksum, payload, checksum")
  func record() {
    let payload = Array("123456789".utf8)
    let record = Event.record(payload)
    #expect(record.count == 8 + 4 + 9 + 4)
    #expect(Array(record[..<8]) == [9, 0, 0, 0, 0, 0, 0, 0])
    #expect(Array(record[12..<21]) == payload)
    let sum: UInt32 = 0xE306_9283
    let masked = (sum >> 15 | sum << 17) &+ 0xA282_EAD8
    #expect(Array(record[21...]) == withUnsafeBytes(of: masked.littleEndian) { Array($0) })
  }

  @Test("files are made beside each other, a record for each call")
  func files() throws {
    let folder =
      FileManager.default.temporaryDirectory.path
      + "/tensorboard-\(UUID().uuidString)/runs/one"
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let first = try TensorBoardWriter(directory: folder, now: 42)
    let second = try TensorBoardWriter(directory: folder, now: 42)
    #expect(first.path != second.path)
    let name = try #require(first.path.split(separator: "/").last)
    #expect(name.hasPrefix("events.out.tfevents.0000000042."))
    try first.write([("train/loss", 2.5)], step: 1, now: 43)
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: first.path)))
    #expect(
      bytes == Event.record(Event.version(time: 42))
        + Event.record(Event.scalars([("train/loss", 2.5)], step: 1, time: 43)))
  }

  @Test("a folder that cannot be is named")
  func noFolder() {
    #expect(throws: TrainingError.self) {
      try TensorBoardWriter(directory: "/proc/none/of/this")
    }
    #expect(
      "\(TrainingError.cannotWrite(path: "/x", reason: "Read-only file system"))"
        == "/x cannot be written: Read-only file system")
  }
}
