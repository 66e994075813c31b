import CMessages

/// A stage as the gateway sees it.
public struct GatewayStage: Message {
  public var name: String = ""
  public var address: String = ""
  public var ready: Bool = false
  public var detail: String = ""
  public var description: StageDescription?

  public init() {}

  public init(
    name: String = "", address: String = "", ready: Bool = false, detail: String = "",
    description: StageDescription? = nil
  ) {
    self.name = name
    self.address = address
    self.ready = ready
    self.detail = detail
    self.description = description
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension GatewayStage: CodedMessage {
  static var protoName: String { "GatewayStage" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__GatewayStage>?) -> Void {
    chiasm__v1__gateway_stage__init
  }

  init(_ c: Chiasm__V1__GatewayStage) throws {
    self.init()
    name = try Read.string(c.name, "GatewayStage.name") ?? ""
    address = try Read.string(c.address, "GatewayStage.address") ?? ""
    ready = c.has_ready != 0 && c.ready != 0
    detail = try Read.string(c.detail, "GatewayStage.detail") ?? ""
    description = try Read.message(c.description)
  }

  func fill(_ c: inout Chiasm__V1__GatewayStage, _ memory: BumpMemory) {
    if !name.isEmpty { c.name = memory.string(name) }
    if !address.isEmpty { c.address = memory.string(address) }
    if ready { (c.has_ready, c.ready) = (1, 1) }
    if !detail.isEmpty { c.detail = memory.string(detail) }
    if let description { c.description = memory.message(description) }
  }
}

/// What a gateway serves.
public struct GatewayDescription: Message {
  public var model: String = ""
  public var templateName: String = ""
  public var contextLength: Int = 0
  public var imageSize: Int = 0
  public var imageTokens: Int = 0
  public var stages: [GatewayStage] = []
  public var running: Int = 0
  public var waiting: Int = 0

  public init() {}

  public init(
    model: String = "", templateName: String = "", contextLength: Int = 0, imageSize: Int = 0,
    imageTokens: Int = 0, stages: [GatewayStage] = [], running: Int = 0, waiting: Int = 0
  ) {
    self.model = model
    self.templateName = templateName
    self.contextLength = contextLength
    self.imageSize = imageSize
    self.imageTokens = imageTokens
    self.stages = stages
    self.running = running
    self.waiting = waiting
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension GatewayDescription: CodedMessage {
  static var protoName: String { "GatewayDescription" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__GatewayDescription>?) -> Void {
    chiasm__v1__gateway_description__init
  }

  init(_ c: Chiasm__V1__GatewayDescription) throws {
    self.init()
    model = try Read.string(c.model, "GatewayDescription.model") ?? ""
    templateName = try Read.string(c.template_name, "GatewayDescription.template_name") ?? ""
    if c.has_context_length != 0 {
      contextLength = try Read.integer(c.context_length, "GatewayDescription.context_length")
    }
    if c.has_image_size != 0 {
      imageSize = try Read.integer(c.image_size, "GatewayDescription.image_size")
    }
    if c.has_image_tokens != 0 {
      imageTokens = try Read.integer(c.image_tokens, "GatewayDescription.image_tokens")
    }
    stages = try Read.messages(c.n_stage, c.stage)
    if c.has_running != 0 { running = try Read.integer(c.running, "GatewayDescription.running") }
    if c.has_waiting != 0 { waiting = try Read.integer(c.waiting, "GatewayDescription.waiting") }
  }

  func fill(_ c: inout Chiasm__V1__GatewayDescription, _ memory: BumpMemory) {
    if !model.isEmpty { c.model = memory.string(model) }
    if !templateName.isEmpty { c.template_name = memory.string(templateName) }
    if contextLength != 0 {
      (c.has_context_length, c.context_length) = (1, UInt32(clamping: contextLength))
    }
    if imageSize != 0 { (c.has_image_size, c.image_size) = (1, UInt32(clamping: imageSize)) }
    if imageTokens != 0 {
      (c.has_image_tokens, c.image_tokens) = (1, UInt32(clamping: imageTokens))
    }
    if !stages.isEmpty { (c.n_stage, c.stage) = (stages.count, memory.messages(stages)) }
    if running != 0 { (c.has_running, c.running) = (1, UInt32(clamping: running)) }
    if waiting != 0 { (c.has_waiting, c.waiting) = (1, UInt32(clamping: waiting)) }
  }
}
