/// `manifest.json` of a checkpoint: every other file with its size and digest, by which a torn or
/// damaged checkpoint is known.
struct CheckpointManifest: Sendable, Equatable {
  struct File: Sendable, Equatable {
    /// Relative to the checkpoint's folder.
    var path: String
    var byteCount: Int
    /// SHA-256; nil where none was made.
    var digest: String?
  }

  static let fileName = "manifest.json"
  private static let version = 1
  private static let maximumBytes = 16 << 20
  private static let maximumFiles = 1 << 16

  var step: Int
  var files: [File]

  init(step: Int, files: [File]) {
    self.step = step
    self.files = files
  }

  /// - Throws: ``CheckpointError`` when there is none, or it is damaged.
  static func load(folder: String) throws -> CheckpointManifest {
    let path = "\(folder)/\(fileName)"
    let object = try ConfigurationObject(readFile(path, limit: maximumBytes), file: path)
    let found = try object.integer("version", in: 1...Int.max)
    guard found == version else {
      throw object.unsupported("version", "\(found)", "version \(version)")
    }
    let step = try object.integer("step", in: 0...Int.max)
    let files = try object.objects("files", limit: maximumFiles).map { file in
      let name = try file.requiredString("path")
      guard isRelative(name) else {
        throw file.invalid("path", name, "a file below the checkpoint's folder")
      }
      return File(
        path: name, byteCount: try file.integer("bytes", in: 0...Int.max),
        digest: try file.string("sha256"))
    }
    return CheckpointManifest(step: step, files: files)
  }

  var json: JSONValue {
    .object([
      ("version", .integer(CheckpointManifest.version)),
      ("step", .integer(step)),
      (
        "files",
        .array(
          files.map { file in
            var members: [(String, JSONValue)] = [
              ("path", .string(file.path)), ("bytes", .integer(file.byteCount)),
            ]
            if let digest = file.digest { members.append(("sha256", .string(digest))) }
            return .object(members)
          })
      ),
    ])
  }

  /// Compares a folder with what the manifest says of it.
  ///
  /// - Parameter checksDigests: reads every byte of it.
  /// - Throws: ``CheckpointError/missingFile(_:)``, ``CheckpointError/notAFile(_:)``,
  ///   ``CheckpointError/damaged(file:expected:found:)``.
  func check(folder: String, checksDigests: Bool) throws {
    for file in files {
      let path = "\(folder)/\(file.path)"
      let found = try OpenFile(reading: path).byteCount
      guard found == file.byteCount else {
        throw CheckpointError.damaged(
          file: path, expected: "\(file.byteCount) bytes", found: "\(found)")
      }
    }
    guard checksDigests else { return }
    let digested = files.compactMap { file in
      file.digest.map { (path: "\(folder)/\(file.path)", digest: $0) }
    }
    let found = try Digest.sha256(files: digested.map(\.path))
    for (file, found) in zip(digested, found) where found != file.digest {
      throw CheckpointError.damaged(
        file: file.path, expected: "SHA-256 \(file.digest)", found: found)
    }
  }

  private static func isRelative(_ path: String) -> Bool {
    guard path.utf8.count <= 1024, !path.utf8.contains(0) else { return false }
    return path.split(separator: "/", omittingEmptySubsequences: false)
      .allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
  }
}
