import HTTPTypes
import Hummingbird
import Messages
import NIOCore
import Transport

/// A failure as clients of the OpenAI API read it.
///
/// (The shape is that of `platform.openai.com/docs/guides/error-codes`.)
struct APIError: Error {
  var status: HTTPResponse.Status
  var message: String
  /// The field at fault.
  var parameter: String?
  var code: String?

  init(
    _ status: HTTPResponse.Status, _ message: String, parameter: String? = nil,
    code: String? = nil
  ) {
    self.status = status
    self.message = message
    self.parameter = parameter
    self.code = code
  }

  /// A field that is not what it should be.
  static func invalid(_ parameter: String, _ message: String) -> APIError {
    APIError(.badRequest, message, parameter: parameter)
  }

  /// What a client sees of any error of a handler.
  init(_ error: any Error) {
    switch error {
    case let error as APIError: self = error
    case is NIOTooManyBytesError:
      self.init(.contentTooLarge, "the request's body is larger than this gateway takes")
    case let error as HTTPError:
      self.init(error.status, error.body ?? error.status.reasonPhrase)
    case let error as any HTTPResponseError:
      self.init(error.status, error.status.reasonPhrase)
    default:
      let error = RPCError(handlerError: error)
      self.init(Self.status(of: error.code), error.message)
    }
  }

  private static func status(of code: StatusCode) -> HTTPResponse.Status {
    switch code {
    case .invalidArgument, .outOfRange: .badRequest
    case .unauthenticated: .unauthorized
    case .permissionDenied: .forbidden
    case .notFound: .notFound
    case .resourceExhausted: .tooManyRequests
    case .unavailable: .serviceUnavailable
    case .deadlineExceeded: .gatewayTimeout
    case .unimplemented: .notImplemented
    case .cancelled: .init(code: 499, reasonPhrase: "Client Closed Request")
    default: .internalServerError
    }
  }

  var body: ErrorBody {
    let type =
      switch status.code {
      case 401: "authentication_error"
      case 403: "permission_error"
      case 429: "rate_limit_error"
      case 400..<500: "invalid_request_error"
      default: "server_error"
      }
    return ErrorBody(
      error: .init(message: message, type: type, param: parameter, code: code))
  }

  func response() -> Response {
    var response = JSON.response(body, status: status)
    // Sooner is of no use: a place gets free when an answer ends, a stage is back when it started.
    if status.code == 429 || status.code == 503 { response.headers[.retryAfter] = "1" }
    if status.code == 401 { response.headers[.wwwAuthenticate] = "Bearer" }
    return response
  }
}

struct ErrorBody: Encodable {
  struct Problem: Encodable {
    let message: String
    let type: String
    let param: String?
    let code: String?

    enum CodingKeys: String, CodingKey { case message, type, param, code }

    /// Clients look for all four fields.
    func encode(to encoder: any Encoder) throws {
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(message, forKey: .message)
      try container.encode(type, forKey: .type)
      try container.encode(param, forKey: .param)
      try container.encode(code, forKey: .code)
    }
  }

  let error: Problem
}

/// Gives every failure of a handler the API's shape.
struct ErrorMiddleware: RouterMiddleware {
  typealias Context = GatewayContext

  func handle(
    _ request: Request, context: Context,
    next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    do {
      return try await next(request, context)
    } catch {
      let failure = APIError(error)
      context.logger.debug(
        "refused", metadata: ["path": "\(request.uri.path)", "error": "\(failure.message)"])
      return failure.response()
    }
  }
}
