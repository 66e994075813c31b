/// What is wrong with one sample, and where it was read.
public struct SampleFlaw: Error, Sendable, Equatable, CustomStringConvertible {
  public enum Kind: String, Sendable, CaseIterable {
    case emptyLine = "empty line"
    case longLine = "line too long"
    case invalidUTF8 = "invalid UTF-8"
    case invalidJSON = "invalid JSON"
    /// A key is missing, or its value of another type.
    case invalidField = "invalid field"
    /// Humans and the model do not alternate, or somebody else speaks.
    case wrongRoles = "wrong roles"
    /// The last turn is a human's, or an answer has no words.
    case noAnswer = "no answer"
    case emptyTurn = "empty turn"
    /// A text holds a token that only the template writes.
    case reservedToken = "reserved token"
    case imageCountMismatch = "image count mismatch"
    case missingPicture = "missing picture"
    case unreadablePicture = "unreadable picture"
    /// Neither JPEG nor PNG, or a variant that is not decoded.
    case notAPicture = "not a picture"
    /// The picture's file ends early or is damaged in the middle.
    case tornPicture = "torn picture"
    case tinyPicture = "tiny picture"
    case hugePicture = "huge picture"
    /// A picture has another size than when the sample was looked at first.
    case changedPicture = "changed picture"
    /// The text could not be encoded, or its parts give other tokens than the whole, so that
    /// nobody can say which of them to learn.
    case tokenization = "tokenization"
    /// The limit of tokens falls into an image.
    case cutImage = "cut image"
    /// The limit of tokens leaves none of the answers.
    case nothingLearnt = "nothing learnt"
    /// More tokens than the limit: the sample is used, without those behind it.
    case overLong = "over-long"
  }

  public var kind: Kind
  public var source: TrainingSample.Source
  /// What was found.
  public var detail: String

  public init(_ kind: Kind, _ source: TrainingSample.Source, _ detail: String) {
    self.kind = kind
    self.source = source
    self.detail = detail
  }

  /// Whether the sample cannot be trained on. Not so where it is merely cut.
  public var isFatal: Bool { kind != .overLong }

  public var description: String {
    "\(Clip.path(source.file)):\(source.line): \(kind.rawValue): \(detail) "
      + "[\(Clip.text(source.dataset))]"
  }
}

/// A flaw of something that does not know where it was read.
struct UnplacedFlaw: Error {
  var kind: SampleFlaw.Kind
  var detail: String

  init(_ kind: SampleFlaw.Kind, _ detail: String) {
    self.kind = kind
    self.detail = detail
  }
}
