import Images
import Messages
import Text
import Transport

extension TextError: StatusConvertible {
  public var statusCode: StatusCode {
    switch self {
    case .unreadableFile, .oversizedFile, .invalidModel, .invalidConfiguration,
      .unsupportedTokenizer, .unknownTemplate, .invalidImageTokenCount, .imageTokenMismatch:
      .failedPrecondition
    case .encodingFailed: .internal
    case .oversizedText, .invalidTurn, .reservedToken, .imageCountMismatch: .invalidArgument
    }
  }
}

extension ImagesError: StatusConvertible {
  public var statusCode: StatusCode { .invalidArgument }
}
