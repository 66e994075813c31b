import Images
import Support

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Fixtures/images/hashes.json: what Pillow makes of each drawn picture.
struct PillowHashes: Decodable {
  struct Picture: Decodable {
    let mode: String
    let width: Int
    let height: Int
    let sha256: String
    let resized: [Resized]
  }

  struct Resized: Decodable {
    let width: Int
    let height: Int
    let sha256: String
    let before13: String?
  }

  let files: [String: Picture]

  static func read() throws -> PillowHashes {
    try JSONDecoder().decode(
      PillowHashes.self, from: Data(contentsOf: fixtureURL("images/hashes.json")))
  }
}

/// The part of a golden case's expected.json that is about its picture.
struct GoldenPicture: Decodable {
  struct Pixels: Decodable {
    let decoded_sha256: String
    let resized_sha256: String
    let shape: [Int]
  }

  let pixels: Pixels

  static func read(_ name: String) throws -> GoldenPicture {
    try JSONDecoder().decode(
      GoldenPicture.self, from: Data(contentsOf: fixtureURL("golden/\(name)/expected.json")))
  }
}

func fixtureURL(_ path: String) -> URL { URL(fileURLWithPath: Fixtures.path(path)) }

func fixture(_ path: String) throws -> [UInt8] { try [UInt8](Data(contentsOf: fixtureURL(path))) }

extension RGBImage {
  var sha256: String { SHA256.hexadecimal(pixels) }

  /// A picture that no two neighbouring samples of are equal in.
  static func patterned(_ width: Int, _ height: Int) -> RGBImage {
    RGBImage(
      width: width, height: height,
      pixels: (0..<3 * width * height).map { UInt8(truncatingIfNeeded: $0 &* 89 &+ $0 / 7) })
  }
}
