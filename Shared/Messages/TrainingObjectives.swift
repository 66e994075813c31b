import CMessages

/// Classes of which a patch of a picture has one.
public struct PatchClassGroup: Message {
  public var name: String = ""
  /// What a patch of each class counts.
  public var classWeights: [Double] = []

  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension PatchClassGroup: CodedMessage {
  static var protoName: String { "PatchClassGroup" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__PatchClassGroup>?) -> Void {
    chiasm__v1__patch_class_group__init
  }

  init(_ c: Chiasm__V1__PatchClassGroup) throws {
    self.init()
    name = try Read.string(c.name, "PatchClassGroup.name") ?? ""
    classWeights = Read.doubles(c.n_class_weight, c.class_weight)
  }

  func fill(_ c: inout Chiasm__V1__PatchClassGroup, _ memory: BumpMemory) {
    if !name.isEmpty { c.name = memory.string(name) }
    if !classWeights.isEmpty {
      (c.n_class_weight, c.class_weight) = (classWeights.count, memory.doubles(classWeights))
    }
  }
}

/// What the loss is made of, where that is not the answers alone.
public struct ObjectiveSettings: Message {
  /// Decoder layers do nothing, and of the language model the embedding table alone is trained.
  public var withoutAnswers: Bool = false
  /// The first language stage has image rows named.
  public var naming: Bool = false
  /// The last vision stage has patches classified.
  public var groups: [PatchClassGroup] = []

  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ObjectiveSettings: CodedMessage {
  static var protoName: String { "ObjectiveSettings" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ObjectiveSettings>?) -> Void {
    chiasm__v1__objective_settings__init
  }

  init(_ c: Chiasm__V1__ObjectiveSettings) throws {
    self.init()
    withoutAnswers = c.has_without_answers != 0 && c.without_answers != 0
    naming = c.has_naming != 0 && c.naming != 0
    groups = try Read.messages(c.n_group, c.group)
  }

  func fill(_ c: inout Chiasm__V1__ObjectiveSettings, _ memory: BumpMemory) {
    if withoutAnswers { (c.has_without_answers, c.without_answers) = (1, 1) }
    if naming { (c.has_naming, c.naming) = (1, 1) }
    if !groups.isEmpty { (c.n_group, c.group) = (groups.count, memory.messages(groups)) }
  }
}

/// What the patches of a micro-batch's pictures show.
public struct PatchTargetsMessage: Message {
  /// The group's place in ``ObjectiveSettings``.
  public var group: Int = 0
  /// One a patch, in raster order, tile after tile; −1: nothing is said.
  public var patches: [Int32] = []
  /// What a patch's loss counts in the step's, times the weight of its class.
  public var scale: Double = 0

  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension PatchTargetsMessage: CodedMessage {
  static var protoName: String { "PatchTargets" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__PatchTargets>?) -> Void {
    chiasm__v1__patch_targets__init
  }

  init(_ c: Chiasm__V1__PatchTargets) throws {
    self.init()
    if c.has_group != 0 { group = try Read.integer(c.group, "PatchTargets.group") }
    patches = try Read.integers(c.n_patch, c.patch, "PatchTargets.patch")
    if c.has_scale != 0 { scale = c.scale }
  }

  func fill(_ c: inout Chiasm__V1__PatchTargets, _ memory: BumpMemory) {
    if group != 0 { (c.has_group, c.group) = (1, UInt32(clamping: group)) }
    if !patches.isEmpty { (c.n_patch, c.patch) = (patches.count, memory.integers(patches)) }
    if scale != 0 { (c.has_scale, c.scale) = (1, scale) }
  }
}

/// Which tokens image rows of a micro-batch should be near to.
public struct NamingTargetsMessage: Message {
  /// The image rows that have a target, ascending.
  public var rows: [Int32] = []
  /// How many tokens and shares each has; its shares sum to 1.
  public var counts: [Int32] = []
  public var tokens: [Int32] = []
  public var shares: [Double] = []
  /// What a row's loss counts in the step's.
  public var scale: Double = 0

  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension NamingTargetsMessage: CodedMessage {
  static var protoName: String { "NamingTargets" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__NamingTargets>?) -> Void {
    chiasm__v1__naming_targets__init
  }

  init(_ c: Chiasm__V1__NamingTargets) throws {
    self.init()
    rows = try Read.integers(c.n_row, c.row, "NamingTargets.row")
    counts = try Read.integers(c.n_count, c.count, "NamingTargets.count")
    tokens = try Read.integers(c.n_token, c.token, "NamingTargets.token")
    shares = Read.doubles(c.n_share, c.share)
    if c.has_scale != 0 { scale = c.scale }
  }

  func fill(_ c: inout Chiasm__V1__NamingTargets, _ memory: BumpMemory) {
    if !rows.isEmpty { (c.n_row, c.row) = (rows.count, memory.integers(rows)) }
    if !counts.isEmpty { (c.n_count, c.count) = (counts.count, memory.integers(counts)) }
    if !tokens.isEmpty { (c.n_token, c.token) = (tokens.count, memory.integers(tokens)) }
    if !shares.isEmpty { (c.n_share, c.share) = (shares.count, memory.doubles(shares)) }
    if scale != 0 { (c.has_scale, c.scale) = (1, scale) }
  }
}

/// What came of the patches of one group, or of the naming of image rows.
public struct ObjectiveLossMessage: Message {
  public var microBatch: Int = 0
  /// nil: the naming of image rows.
  public var group: Int?
  /// Over the rows with a target; of patches each times its class's weight.
  public var sum: Double = 0
  /// Rows with a target; of patches those above class 0.
  public var rows: Int = 0
  /// Of these, those whose greatest is the target's.
  public var right: Int = 0

  public init() {}

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ObjectiveLossMessage: CodedMessage {
  static var protoName: String { "ObjectiveLoss" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ObjectiveLoss>?) -> Void {
    chiasm__v1__objective_loss__init
  }

  init(_ c: Chiasm__V1__ObjectiveLoss) throws {
    self.init()
    if c.has_micro_batch != 0 {
      microBatch = try Read.integer(c.micro_batch, "ObjectiveLoss.micro_batch")
    }
    if c.has_group != 0 { group = try Read.integer(c.group, "ObjectiveLoss.group") }
    if c.has_sum != 0 { sum = c.sum }
    if c.has_rows != 0 { rows = try Read.integer(c.rows, "ObjectiveLoss.rows") }
    if c.has_right != 0 { right = try Read.integer(c.right, "ObjectiveLoss.right") }
  }

  func fill(_ c: inout Chiasm__V1__ObjectiveLoss, _ memory: BumpMemory) {
    if microBatch != 0 { (c.has_micro_batch, c.micro_batch) = (1, UInt32(clamping: microBatch)) }
    if let group { (c.has_group, c.group) = (1, UInt32(clamping: group)) }
    if sum != 0 { (c.has_sum, c.sum) = (1, sum) }
    if rows != 0 { (c.has_rows, c.rows) = (1, UInt32(clamping: rows)) }
    if right != 0 { (c.has_right, c.right) = (1, UInt32(clamping: right)) }
  }
}
