import Checkpoint

/// What a line of an annotation file says.
///
/// Keys: `id`; `image`, a path or a list of them, absent or empty for text alone;
/// `conversations`, a list of `from` (`human` or `gpt`) and `value`. Others are passed over.
public struct SampleRecord: Sendable, Equatable {
  public static let maximumImages = 256
  public static let maximumTurns = 4096

  public struct Turn: Sendable, Equatable {
    public var from: String
    public var value: String

    public init(from: String, value: String) {
      self.from = from
      self.value = value
    }
  }

  public var id: String?
  public var images: [String]
  public var conversations: [Turn]
  /// `patches` and `cells`, where they are read.
  var classes = ClassFields()

  public init(id: String? = nil, images: [String] = [], conversations: [Turn]) {
    self.id = id
    self.images = images
    self.conversations = conversations
  }

  /// - Parameter readsClasses: whether `patches` and `cells` are looked at.
  /// - Throws: ``UnplacedFlaw``.
  init(_ line: [UInt8], readsClasses: Bool = false) throws {
    if String(validating: line, as: UTF8.self) == nil {
      throw UnplacedFlaw(
        .invalidUTF8, "byte \(SampleRecord.firstInvalidByte(line)) begins no character")
    }
    do {
      self = try line.withUnsafeBytes { line in
        var scanner = JSONScanner(line, file: "")
        return try SampleRecord(&scanner, readsClasses)
      }
    } catch CheckpointError.invalidJSON(_, let offset, let reason) {
      throw UnplacedFlaw(
        .invalidJSON,
        offset >= line.count
          ? "\(Clip.text(reason)): the line ends early"
          : "\(Clip.text(reason)) at byte \(offset)")
    } catch CheckpointError.duplicateName(_, let name) {
      throw UnplacedFlaw(.invalidJSON, "the key \(Clip.text(name)) is there twice")
    }
  }

  private init(_ scanner: inout JSONScanner, _ readsClasses: Bool) throws {
    guard scanner.peek() == UInt8(ascii: "{") else {
      // What is no JSON at all is that first.
      try scanner.skipValue()
      try scanner.expectEnd()
      throw UnplacedFlaw(.invalidField, "the line is no object")
    }
    var id: String?
    var images: [String] = []
    var conversations: [Turn]?
    var classes = ClassFields()
    // A flaw of a key is told when the whole line has turned out to be JSON.
    var flaw: UnplacedFlaw?
    try scanner.object { scanner, key in
      switch key {
      case "id":
        switch try scanner.value() {
        case .string(let text): id = text
        case .integer(let number): id = "\(number)"
        default: break
        }
      case "image":
        switch try scanner.value() {
        case .null: break
        case .string(let path): images = path.isEmpty ? [] : [path]
        case .array(let elements):
          images = elements.compactMap { element in
            if case .string(let path) = element, !path.isEmpty { return path }
            return nil
          }
          if images.count < elements.count {
            flaw = flaw ?? UnplacedFlaw(.invalidField, "image is a list of other than paths")
          } else if images.count > SampleRecord.maximumImages {
            flaw =
              flaw
              ?? UnplacedFlaw(
                .invalidField,
                "\(images.count) pictures; \(SampleRecord.maximumImages) at most are taken")
          }
        default:
          flaw = flaw ?? UnplacedFlaw(.invalidField, "image is neither a path nor a list of paths")
        }
      case "video":
        if case .null = try scanner.value() { break }
        flaw = flaw ?? UnplacedFlaw(.invalidField, "video: pictures alone are taken")
      case "conversations":
        let value = try scanner.value()
        do {
          conversations = try SampleRecord.turns(value)
        } catch let found as UnplacedFlaw {
          flaw = flaw ?? found
        }
      case "patches" where readsClasses, "cells" where readsClasses:
        let value = try scanner.value()
        do {
          if key == "cells" { try classes.readCells(value) } else { try classes.readPatches(value) }
        } catch let found as UnplacedFlaw {
          flaw = flaw ?? found
        }
      default: try scanner.skipValue()
      }
    }
    try scanner.expectEnd()
    if let flaw { throw flaw }
    guard let conversations else {
      throw UnplacedFlaw(.invalidField, "there is no key conversations")
    }
    self.init(id: id, images: images, conversations: conversations)
    self.classes = classes
  }

  private static func turns(_ value: JSONValue) throws -> [Turn] {
    guard case .array(let elements) = value else {
      throw UnplacedFlaw(.invalidField, "conversations is no list")
    }
    guard elements.count <= maximumTurns else {
      throw UnplacedFlaw(
        .invalidField, "\(elements.count) turns; \(maximumTurns) at most are taken")
    }
    return try elements.enumerated().map { index, element in
      guard case .object(let members) = element else {
        throw UnplacedFlaw(.invalidField, "turn \(index + 1) is no object")
      }
      func text(_ key: String) throws -> String {
        guard let (_, value) = members.first(where: { $0.0 == key }), case .string(let text) = value
        else { throw UnplacedFlaw(.invalidField, "turn \(index + 1) has no text \(key)") }
        return text
      }
      return Turn(from: try text("from"), value: try text("value"))
    }
  }

  private static func firstInvalidByte(_ bytes: [UInt8]) -> Int {
    var parser = Unicode.UTF8.ForwardParser()
    var iterator = bytes.makeIterator()
    var offset = 0
    while true {
      switch parser.parseScalar(from: &iterator) {
      case .valid(let scalar): offset += scalar.count
      case .error, .emptyInput: return offset
      }
    }
  }
}
