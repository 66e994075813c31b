import CMessages
import Tensors

/// A file of a checkpoint, and what is in it.
public struct SavedShard: Message {
  /// Relative to the folder.
  public var path: String = ""
  /// Names of tensors.
  public var names: [String] = []

  public init() {}

  public init(path: String = "", names: [String] = []) {
    self.path = path
    self.names = names
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SavedShard: CodedMessage {
  static var protoName: String { "SavedShard" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SavedShard>?) -> Void {
    chiasm__v1__saved_shard__init
  }

  init(_ c: Chiasm__V1__SavedShard) throws {
    self.init()
    path = try Read.string(c.path, "SavedShard.path") ?? ""
    names = try Read.strings(c.n_name, c.name, "SavedShard.name")
  }

  func fill(_ c: inout Chiasm__V1__SavedShard, _ memory: BumpMemory) {
    if !path.isEmpty { c.path = memory.string(path) }
    if !names.isEmpty { (c.n_name, c.name) = (names.count, memory.strings(names)) }
  }
}

/// Writes the stage's share of a checkpoint from a snapshot; training goes on meanwhile.
public struct SaveRequest: Message {
  /// Where, on a file system that stage and gateway share; it exists.
  public var folder: String = ""
  public var model: [SavedShard] = []
  /// Moments and float32 masters, in a file of this path relative to the folder; nil: none.
  public var optimizerPath: String?
  /// LoRA is merged into the weights written.
  public var mergeLoRA: Bool = false
  /// Type of all floating-point tensors of the model's files; nil: each as the release has it.
  public var scalarType: ScalarType?
  /// Need not be synced to a disk: the folder lies in memory.
  public var isVolatile: Bool = false
  /// Updates that the parameters must have seen: a snapshot that comes too late is refused;
  /// nil: however many.
  public var updates: Int?

  public init() {}

  public init(
    folder: String = "", model: [SavedShard] = [], optimizerPath: String? = nil,
    mergeLoRA: Bool = false, scalarType: ScalarType? = nil, isVolatile: Bool = false,
    updates: Int? = nil
  ) {
    self.folder = folder
    self.model = model
    self.optimizerPath = optimizerPath
    self.mergeLoRA = mergeLoRA
    self.scalarType = scalarType
    self.isVolatile = isVolatile
    self.updates = updates
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SaveRequest: CodedMessage {
  static var protoName: String { "SaveRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SaveRequest>?) -> Void {
    chiasm__v1__save_request__init
  }

  init(_ c: Chiasm__V1__SaveRequest) throws {
    self.init()
    folder = try Read.string(c.folder, "SaveRequest.folder") ?? ""
    model = try Read.messages(c.n_model, c.model)
    optimizerPath = try Read.string(c.optimizer_path, "SaveRequest.optimizer_path")
    mergeLoRA = c.has_merge_lora != 0 && c.merge_lora != 0
    if c.has_scalar != 0 {
      scalarType = try ScalarType(number: c.scalar.rawValue, in: "SaveRequest.scalar")
    }
    isVolatile = c.has_volatile_copy != 0 && c.volatile_copy != 0
    if c.has_updates != 0 { updates = try Read.integer(c.updates, "SaveRequest.updates") }
  }

  func fill(_ c: inout Chiasm__V1__SaveRequest, _ memory: BumpMemory) {
    if !folder.isEmpty { c.folder = memory.string(folder) }
    if !model.isEmpty { (c.n_model, c.model) = (model.count, memory.messages(model)) }
    if let optimizerPath { c.optimizer_path = memory.string(optimizerPath) }
    if mergeLoRA { (c.has_merge_lora, c.merge_lora) = (1, 1) }
    if let scalarType { (c.has_scalar, c.scalar) = (1, Chiasm__V1__ScalarType(scalarType.number)) }
    if isVolatile { (c.has_volatile_copy, c.volatile_copy) = (1, 1) }
    if let updates { (c.has_updates, c.updates) = (1, UInt64(clamping: updates)) }
  }
}

/// Says that the files are written and synced.
public struct SaveReply: Message {
  /// Written.
  public var bytes: Int = 0
  /// Which file found no room on a full disk; nil: all are there.
  public var noRoom: String?

  public init() {}

  public init(bytes: Int = 0, noRoom: String? = nil) {
    self.bytes = bytes
    self.noRoom = noRoom
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension SaveReply: CodedMessage {
  static var protoName: String { "SaveReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__SaveReply>?) -> Void {
    chiasm__v1__save_reply__init
  }

  init(_ c: Chiasm__V1__SaveReply) throws {
    self.init()
    if c.has_bytes != 0 { bytes = try Read.integer(c.bytes, "SaveReply.bytes") }
    noRoom = try Read.string(c.no_room, "SaveReply.no_room")
  }

  func fill(_ c: inout Chiasm__V1__SaveReply, _ memory: BumpMemory) {
    if bytes != 0 { (c.has_bytes, c.bytes) = (1, UInt64(clamping: bytes)) }
    if let noRoom { c.no_room = memory.string(noRoom) }
  }
}

/// Asks for tensors by parameters' names, at most 64 of them, for probes.
public struct FetchRequest: Message {
  public var names: [String] = []
  /// "value", "gradient", "exp_avg" or "exp_avg_sq".
  public var what: String = ""

  public init() {}

  public init(names: [String] = [], what: String = "") {
    self.names = names
    self.what = what
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension FetchRequest: CodedMessage {
  static var protoName: String { "FetchRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__FetchRequest>?) -> Void {
    chiasm__v1__fetch_request__init
  }

  init(_ c: Chiasm__V1__FetchRequest) throws {
    self.init()
    names = try Read.strings(c.n_name, c.name, "FetchRequest.name")
    what = try Read.string(c.what, "FetchRequest.what") ?? ""
  }

  func fill(_ c: inout Chiasm__V1__FetchRequest, _ memory: BumpMemory) {
    if !names.isEmpty { (c.n_name, c.name) = (names.count, memory.strings(names)) }
    if !what.isEmpty { c.what = memory.string(what) }
  }
}

/// The tensors, float32, lie beside it under their names.
public struct FetchReply: Message {
  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension FetchReply: CodedMessage {
  static var protoName: String { "FetchReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__FetchReply>?) -> Void {
    chiasm__v1__fetch_reply__init
  }

  init(_ c: Chiasm__V1__FetchReply) throws { self.init() }

  func fill(_ c: inout Chiasm__V1__FetchReply, _ memory: BumpMemory) {}
}

/// Starts a run on a gateway's mesh.
public struct TrainRequest: Message {
  /// JSON of the names that the command line and a YAML file use.
  public var configuration: [UInt8] = []

  public init() {}

  public init(configuration: [UInt8] = []) {
    self.configuration = configuration
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TrainRequest: CodedMessage {
  static var protoName: String { "TrainRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TrainRequest>?) -> Void {
    chiasm__v1__train_request__init
  }

  init(_ c: Chiasm__V1__TrainRequest) throws {
    self.init()
    if c.has_configuration != 0 { configuration = Read.bytes(c.configuration) }
  }

  func fill(_ c: inout Chiasm__V1__TrainRequest, _ memory: BumpMemory) {
    if !configuration.isEmpty {
      (c.has_configuration, c.configuration) = (1, memory.bytes(configuration))
    }
  }
}

/// One event of a run.
public struct TrainEvent: Message {
  /// A JSON object: the line that train_log.jsonl gets, or progress.
  public var json: [UInt8] = []

  public init() {}

  public init(json: [UInt8] = []) {
    self.json = json
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension TrainEvent: CodedMessage {
  static var protoName: String { "TrainEvent" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__TrainEvent>?) -> Void {
    chiasm__v1__train_event__init
  }

  init(_ c: Chiasm__V1__TrainEvent) throws {
    self.init()
    if c.has_json != 0 { json = Read.bytes(c.json) }
  }

  func fill(_ c: inout Chiasm__V1__TrainEvent, _ memory: BumpMemory) {
    if !json.isEmpty { (c.has_json, c.json) = (1, memory.bytes(json)) }
  }
}
