import Checkpoint
import Text

/// What patches and cells of pictures may show: `classes.json`.
///
/// A JSON object: `format` 1; `patch_size`; `groups`, an object of groups by name, each with a
/// `weight` and `classes`, a list of objects with `name`, `words` and `weight`. A class's number is
/// its place in the list. Weights are 1 where there are none; a class without words is never named.
public struct PictureClasses: Sendable, Equatable {
  public struct Class: Sendable, Equatable {
    public var name: String
    /// What it is called, in any language.
    public var words: [String]
    /// What a patch of it counts.
    public var weight: Double
  }

  public struct Group: Sendable, Equatable {
    public var name: String
    /// What its loss counts.
    public var weight: Double
    public var classes: [Class]
  }

  public let path: String
  /// Pixels on a side of a patch.
  public let patchSize: Int
  /// In the file's order.
  public let groups: [Group]
  /// Of the file's bytes.
  public let digest: String

  static let maximumBytes = 16 << 20
  static let maximumGroups = 64
  static let maximumClasses = 1 << 16
  static let maximumWords = 64
  static let maximumWordBytes = 256

  /// Where the classes of a meta file's data are, unless somebody says otherwise.
  public static func path(beside meta: String) -> String {
    DataFile.join(DataFile.folder(of: meta), "classes.json")
  }

  /// - Throws: ``TrainingDataError`` `unreadableFile`, `oversizedFile`, `invalidClasses`.
  public init(path: String) throws {
    let bytes: [UInt8]
    do {
      let file = try DataFile(path)
      guard file.byteCount <= PictureClasses.maximumBytes else {
        throw TrainingDataError.oversizedFile(
          path: path, found: file.byteCount, limit: PictureClasses.maximumBytes, unit: "bytes")
      }
      bytes = try file.bytes(at: 0, count: file.byteCount)
    } catch DataFile.Failure.missing {
      throw TrainingDataError.unreadableFile(path: path, reason: "there is no such file")
    } catch DataFile.Failure.unreadable(let reason) {
      throw TrainingDataError.unreadableFile(path: path, reason: reason)
    }
    try self.init(bytes, path: path)
  }

  /// - Parameter path: what errors name.
  /// - Throws: ``TrainingDataError/invalidClasses(path:reason:)``.
  init(_ bytes: [UInt8], path: String) throws {
    func invalid(_ reason: String) -> TrainingDataError {
      .invalidClasses(path: path, reason: reason)
    }
    let value: JSONValue
    do {
      value = try JSONValue.parse(bytes, file: path)
    } catch CheckpointError.invalidJSON(_, let offset, let reason) {
      throw invalid("no JSON at byte \(offset): \(reason)")
    } catch CheckpointError.duplicateName(_, let name) {
      throw invalid("\(Clip.text(name)) is there twice")
    }
    guard case .object(let members) = value else { throw invalid("it is no object") }
    guard case .integer(1)? = PictureClasses.member("format", members) else {
      throw invalid("format is not 1")
    }
    guard case .integer(let size)? = PictureClasses.member("patch_size", members), size > 0 else {
      throw invalid("patch_size is no number of pixels")
    }
    guard case .object(let groups)? = PictureClasses.member("groups", members), !groups.isEmpty,
      groups.count <= PictureClasses.maximumGroups
    else {
      throw invalid("groups is no object of 1 to \(PictureClasses.maximumGroups) groups")
    }
    self.path = path
    patchSize = size
    self.groups = try groups.map { name, value in
      do {
        return try PictureClasses.group(name, value)
      } catch let problem as Problem {
        throw invalid("the group \(Clip.text(name)): \(problem.text)")
      }
    }
    digest = Digest.sha256(bytes)
  }

  private struct Problem: Error { var text: String }

  private static func member(_ name: String, _ members: [(String, JSONValue)]) -> JSONValue? {
    members.first { $0.0 == name }?.1
  }

  private static func group(_ name: String, _ value: JSONValue) throws -> Group {
    // Tensors are called by it.
    let isPlain = name.utf8.allSatisfy { byte in
      switch Unicode.Scalar(byte) {
      case "a"..."z", "A"..."Z", "0"..."9", "_", "-": true
      default: false
      }
    }
    guard isPlain, (1...64).contains(name.utf8.count) else {
      throw Problem(text: "a name is 1 to 64 letters, digits, _ and -")
    }
    guard case .object(let members) = value, case .array(let classes)? = member("classes", members),
      (1...maximumClasses).contains(classes.count)
    else { throw Problem(text: "it has no list of 1 to \(maximumClasses) classes") }
    return Group(
      name: name, weight: try weight(members),
      classes: try classes.enumerated().map { index, value in
        guard case .object(let members) = value, case .string(let name)? = member("name", members)
        else { throw Problem(text: "class \(index) is no object with a name") }
        return Class(name: name, words: try words(members, index), weight: try weight(members))
      })
  }

  private static func words(_ members: [(String, JSONValue)], _ index: Int) throws -> [String] {
    let problem = Problem(
      text: "words of class \(index) are no list of at most \(maximumWords) texts of 1 to "
        + "\(maximumWordBytes) bytes")
    guard let value = member("words", members) else { return [] }
    guard case .array(let elements) = value, elements.count <= maximumWords else { throw problem }
    return try elements.map { element in
      guard case .string(let word) = element, (1...maximumWordBytes).contains(word.utf8.count)
      else { throw problem }
      return word
    }
  }

  private static func weight(_ members: [(String, JSONValue)]) throws -> Double {
    let weight: Double
    switch member("weight", members) {
    case nil: return 1
    case .integer(let value)?: weight = Double(value)
    case .number(let value)?: weight = value
    default: weight = .nan
    }
    guard weight >= 0, weight <= 1e6 else {
      throw Problem(text: "a weight is no number from 0 to 1000000")
    }
    return weight
  }
}

extension PictureClasses {
  /// The tokens of a class's words: each as an answer begins with it and, where it begins with a
  /// Latin letter, as it stands behind a space.
  public typealias Forms = [[Int32]]

  /// By group and class.
  ///
  /// - Throws: `TextError`.
  public func forms(_ tokenizer: Tokenizer) throws -> [[Forms]] {
    let opening = "\(ImagePlaceholders.context)\n"
    let before = try tokenizer.encode(opening)
    func tokens(_ text: String) throws -> [Int32] {
      var ids = try tokenizer.encode(opening + text)
      // Behind a newline no tokenizer adds a space of its own.
      if ids.starts(with: before) {
        ids.removeFirst(before.count)
      } else {
        ids = try tokenizer.encode(text)
      }
      return ids.map { Int32($0) }
    }
    return try groups.map { group in
      try group.classes.map { one in
        try one.words.flatMap { word -> Forms in
          var forms = [try tokens(word)]
          if let first = word.unicodeScalars.first, first.properties.isAlphabetic,
            first.value < 0x250
          {
            forms.append(try tokens(" " + word))
          }
          return forms.filter { !$0.isEmpty }
        }
      }
    }
  }
}
