import Support
import Testing

@testable import Mesh

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Whatever a mesh file holds, reading it ends: with services, or with an error that says where.
@Suite struct ComposeFileMutationTests {
  private static let environment = ["CHIASM_MODEL": "/model", "CHIASM_RUN": "/run/chiasm"]

  private func read(_ bytes: [UInt8]) {
    do {
      let file = try ComposeFile.parse(bytes, path: "mesh.yaml", environment: Self.environment)
      #expect(!file.services.isEmpty)
    } catch {
      #expect("\(error)".hasPrefix("mesh.yaml"), "\(error)")
    }
  }

  @Test(arguments: ["local", "split"], 1...4)
  func `A shipped file with some bytes changed is read or refused`(
    name: String, seed: UInt64
  ) throws {
    let path = Fixtures.path("../../compose/\(name).yaml")
    let original = [UInt8](try Data(contentsOf: URL(filePath: path)))
    var random = SeededRandom(seed)
    let telling = Array("{}[]:,&*#?|->!%@`'\"\\\n\t $<".utf8)
    for _ in 0..<150 {
      var bytes = original
      for _ in 0..<Int.random(in: 1...6, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes[place] = telling.randomElement(using: &random) ?? 0
        case 2: bytes.insert(telling.randomElement(using: &random) ?? 0, at: place)
        default:
          let length: Int = min(bytes.count - place, Int.random(in: 1...40, using: &random))
          if length < bytes.count { bytes.removeSubrange(place..<(place + length)) }
        }
      }
      read(bytes)
    }
  }

  @Test(arguments: 1...4)
  func `Random bytes are refused`(seed: UInt64) {
    var random = SeededRandom(seed)
    for _ in 0..<200 {
      let count = Int.random(in: 0...400, using: &random)
      read((0..<count).map { _ in UInt8.random(in: 0...255, using: &random) })
    }
  }
}
