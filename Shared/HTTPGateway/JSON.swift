#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
import HTTPTypes
import Hummingbird
import NIOCore

/// Bodies as JSON.
enum JSON {
  static func encode(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes]
    do {
      return [UInt8](try encoder.encode(value))
    } catch {
      preconditionFailure("a response of ours has no JSON: \(error)")
    }
  }

  static func response(
    _ value: some Encodable, status: HTTPResponse.Status = .ok
  ) -> Response {
    Response(
      status: status, headers: [.contentType: "application/json"],
      body: ResponseBody(byteBuffer: ByteBuffer(bytes: encode(value))))
  }

  /// - Throws: 400, naming the field at fault.
  static func decode<Value: Decodable>(_ type: Value.Type, from body: ByteBuffer) throws -> Value {
    do {
      return try JSONDecoder().decode(type, from: Data(body.readableBytesView))
    } catch let error as DecodingError {
      throw problem(error)
    } catch let error as APIError {
      throw error
    } catch {
      throw APIError(.badRequest, "the body is no JSON that can be read: \(error)")
    }
  }

  private static func problem(_ error: DecodingError) -> APIError {
    let (context, reason): (DecodingError.Context, String) =
      switch error {
      case .keyNotFound(let key, let context):
        (context, "the field \(key.stringValue) is missing")
      case .typeMismatch(_, let context), .valueNotFound(_, let context),
        .dataCorrupted(let context):
        (context, context.debugDescription)
      @unknown default: (.init(codingPath: [], debugDescription: ""), "\(error)")
      }
    let path = context.codingPath.map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }
      .joined(separator: ".")
    return APIError(
      .badRequest, path.isEmpty ? reason : "\(path): \(reason)",
      parameter: path.isEmpty ? nil : path)
  }
}
