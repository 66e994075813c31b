import Testing

@testable import Checkpoint

@Suite struct DigestTests {
  // FIPS 180-4's examples.
  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
      "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
      "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    ),
  ])
  func `matches the standard's examples`(text: String, digest: String) throws {
    #expect(Digest.sha256(Array(text.utf8)) == digest)
    let folder = try TemporaryFolder()
    #expect(try Digest.sha256(file: folder.write("f", text)) == digest)
  }

  @Test func `a file read in pieces has the digest of its whole`() throws {
    let bytes = (0..<(2 << 20) + 5).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    let folder = try TemporaryFolder()
    #expect(try Digest.sha256(file: folder.write("f", bytes)) == Digest.sha256(bytes))
  }

  @Test(arguments: [0, 1, 17])
  func `digests of several files are in their order`(count: Int) throws {
    let folder = try TemporaryFolder()
    let paths = try (0..<count).map {
      try folder.write("\($0)", [UInt8](repeating: UInt8($0), count: $0 * 7919 % 100))
    }
    #expect(try Digest.sha256(files: paths) == paths.map { try Digest.sha256(file: $0) })
    guard count > 0 else { return }
    #expect(throws: CheckpointError.missingFile("/nonexistent")) {
      try Digest.sha256(files: paths + ["/nonexistent"])
    }
    let long = try folder.write("long", [1])
    #expect(throws: CancellationError.self) { try Digest.sha256(files: [long]) { true } }
  }

  @Test func `a missing file is an error`() {
    #expect(throws: CheckpointError.missingFile("/nonexistent/file")) {
      try Digest.sha256(file: "/nonexistent/file")
    }
  }
}
