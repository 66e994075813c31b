import CMessages

/// Whether a service takes calls.
public enum ServingStatus: UInt32, Sendable, Hashable, CaseIterable {
  case unknown = 0
  case serving = 1
  case notServing = 2
  /// Only in answers to Watch.
  case serviceUnknown = 3
}

/// Asks whether a service takes calls.
public struct HealthCheckRequest: Message {
  /// Empty: the server as a whole.
  public var service: String = ""

  public init() {}

  public init(service: String = "") {
    self.service = service
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension HealthCheckRequest: CodedMessage {
  static var protoName: String { "HealthCheckRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__HealthCheckRequest>?) -> Void {
    chiasm__v1__health_check_request__init
  }

  init(_ c: Chiasm__V1__HealthCheckRequest) throws {
    self.init()
    service = try Read.string(c.service, "HealthCheckRequest.service") ?? ""
  }

  func fill(_ c: inout Chiasm__V1__HealthCheckRequest, _ memory: BumpMemory) {
    if !service.isEmpty { c.service = memory.string(service) }
  }
}

/// Whether a service takes calls.
public struct HealthCheckResponse: Message {
  public var status: ServingStatus = .unknown

  public init() {}

  public init(status: ServingStatus = .unknown) {
    self.status = status
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension HealthCheckResponse: CodedMessage {
  static var protoName: String { "HealthCheckResponse" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__HealthCheckResponse>?) -> Void {
    chiasm__v1__health_check_response__init
  }

  init(_ c: Chiasm__V1__HealthCheckResponse) throws {
    self.init()
    if c.has_status != 0 {
      status = try Read.choice(UInt32(c.status.rawValue), "HealthCheckResponse.status")
    }
  }

  func fill(_ c: inout Chiasm__V1__HealthCheckResponse, _ memory: BumpMemory) {
    if status != .unknown {
      (c.has_status, c.status) = (1, Chiasm__V1__ServingStatus(status.rawValue))
    }
  }
}
