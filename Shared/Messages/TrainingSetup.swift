import CMessages
import Tensors

/// Low-rank adapters of one part of the model.
public struct LoRASettings: Message {
  public var rank: Int = 0
  public var alpha: Double = 0
  public var dropout: Double = 0

  public init() {}

  public init(rank: Int = 0, alpha: Double = 0, dropout: Double = 0) {
    self.rank = rank
    self.alpha = alpha
    self.dropout = dropout
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension LoRASettings: CodedMessage {
  static var protoName: String { "LoRASettings" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__LoRASettings>?) -> Void {
    chiasm__v1__lo_rasettings__init
  }

  init(_ c: Chiasm__V1__LoRASettings) throws {
    self.init()
    if c.has_rank != 0 { rank = try Read.integer(c.rank, "LoRASettings.rank") }
    if c.has_alpha != 0 { alpha = c.alpha }
    if c.has_dropout != 0 { dropout = c.dropout }
  }

  func fill(_ c: inout Chiasm__V1__LoRASettings, _ memory: BumpMemory) {
    if rank != 0 { (c.has_rank, c.rank) = (1, UInt32(clamping: rank)) }
    if alpha != 0 { (c.has_alpha, c.alpha) = (1, alpha) }
    if dropout != 0 { (c.has_dropout, c.dropout) = (1, dropout) }
  }
}

/// Turns a stage into one that trains, or sets one that does back to a given state.
public struct PrepareTrainingRequest: Message {
  public var seed: UInt64 = 0
  /// Which parts of the whole model are trained.
  public var trainVision: Bool = false
  public var trainProjector: Bool = false
  public var trainLanguage: Bool = false
  public var visionLoRA: LoRASettings?
  public var languageLoRA: LoRASettings?
  /// Of the last vision layer; rises linearly from 0 at the first.
  public var dropPathRate: Double = 0
  /// "full", "selective" or "none".
  public var recompute: String = ""
  public var beta1: Double = 0
  public var beta2: Double = 0
  public var epsilon: Double = 0
  public var weightDecay: Double = 0
  /// "all" or "hf".
  public var decay: String = ""
  /// A checkpoint folder to take parameters and moments from; nil: the model folder, and
  /// moments of zero.
  public var resume: String?
  /// Gradients are kept after the update, to be fetched.
  public var keepGradients: Bool = false
  /// The id in whose places the first language stage puts image rows.
  public var imageToken: Int?
  /// Paths of files that the gateway has just written where checkpoints go, which the stage must
  /// see.
  public var sharedFiles: [String] = []
  /// nil: the loss is the answers' alone.
  public var objectives: ObjectiveSettings?

  public init() {}

  public init(
    seed: UInt64 = 0, trainVision: Bool = false, trainProjector: Bool = false,
    trainLanguage: Bool = false, visionLoRA: LoRASettings? = nil, languageLoRA: LoRASettings? = nil,
    dropPathRate: Double = 0, recompute: String = "", beta1: Double = 0, beta2: Double = 0,
    epsilon: Double = 0, weightDecay: Double = 0, decay: String = "", resume: String? = nil,
    keepGradients: Bool = false, imageToken: Int? = nil, sharedFiles: [String] = []
  ) {
    self.seed = seed
    self.trainVision = trainVision
    self.trainProjector = trainProjector
    self.trainLanguage = trainLanguage
    self.visionLoRA = visionLoRA
    self.languageLoRA = languageLoRA
    self.dropPathRate = dropPathRate
    self.recompute = recompute
    self.beta1 = beta1
    self.beta2 = beta2
    self.epsilon = epsilon
    self.weightDecay = weightDecay
    self.decay = decay
    self.resume = resume
    self.keepGradients = keepGradients
    self.imageToken = imageToken
    self.sharedFiles = sharedFiles
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension PrepareTrainingRequest: CodedMessage {
  static var protoName: String { "PrepareTrainingRequest" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__PrepareTrainingRequest>?) -> Void {
    chiasm__v1__prepare_training_request__init
  }

  init(_ c: Chiasm__V1__PrepareTrainingRequest) throws {
    self.init()
    if c.has_seed != 0 { seed = c.seed }
    trainVision = c.has_train_vision != 0 && c.train_vision != 0
    trainProjector = c.has_train_projector != 0 && c.train_projector != 0
    trainLanguage = c.has_train_language != 0 && c.train_language != 0
    visionLoRA = try Read.message(c.vision_lora)
    languageLoRA = try Read.message(c.language_lora)
    if c.has_drop_path_rate != 0 { dropPathRate = c.drop_path_rate }
    recompute = try Read.string(c.recompute, "PrepareTrainingRequest.recompute") ?? ""
    if c.has_beta1 != 0 { beta1 = c.beta1 }
    if c.has_beta2 != 0 { beta2 = c.beta2 }
    if c.has_epsilon != 0 { epsilon = c.epsilon }
    if c.has_weight_decay != 0 { weightDecay = c.weight_decay }
    decay = try Read.string(c.decay, "PrepareTrainingRequest.decay") ?? ""
    resume = try Read.string(c.resume, "PrepareTrainingRequest.resume")
    keepGradients = c.has_keep_gradients != 0 && c.keep_gradients != 0
    if c.has_image_token != 0 {
      imageToken = try Read.integer(c.image_token, "PrepareTrainingRequest.image_token")
    }
    sharedFiles = try Read.strings(
      c.n_shared_file, c.shared_file, "PrepareTrainingRequest.shared_file")
    objectives = try Read.message(c.objectives)
  }

  func fill(_ c: inout Chiasm__V1__PrepareTrainingRequest, _ memory: BumpMemory) {
    if seed != 0 { (c.has_seed, c.seed) = (1, seed) }
    if trainVision { (c.has_train_vision, c.train_vision) = (1, 1) }
    if trainProjector { (c.has_train_projector, c.train_projector) = (1, 1) }
    if trainLanguage { (c.has_train_language, c.train_language) = (1, 1) }
    if let visionLoRA { c.vision_lora = memory.message(visionLoRA) }
    if let languageLoRA { c.language_lora = memory.message(languageLoRA) }
    if dropPathRate != 0 { (c.has_drop_path_rate, c.drop_path_rate) = (1, dropPathRate) }
    if !recompute.isEmpty { c.recompute = memory.string(recompute) }
    if beta1 != 0 { (c.has_beta1, c.beta1) = (1, beta1) }
    if beta2 != 0 { (c.has_beta2, c.beta2) = (1, beta2) }
    if epsilon != 0 { (c.has_epsilon, c.epsilon) = (1, epsilon) }
    if weightDecay != 0 { (c.has_weight_decay, c.weight_decay) = (1, weightDecay) }
    if !decay.isEmpty { c.decay = memory.string(decay) }
    if let resume { c.resume = memory.string(resume) }
    if keepGradients { (c.has_keep_gradients, c.keep_gradients) = (1, 1) }
    if let imageToken { (c.has_image_token, c.image_token) = (1, UInt32(clamping: imageToken)) }
    if !sharedFiles.isEmpty {
      (c.n_shared_file, c.shared_file) = (sharedFiles.count, memory.strings(sharedFiles))
    }
    if let objectives { c.objectives = memory.message(objectives) }
  }
}

/// A tensor that a stage would write into a checkpoint.
public struct ParameterDescription: Message {
  /// The release's.
  public var name: String = ""
  public var shape: [Int] = []
  /// As the release has it.
  public var scalarType: ScalarType = .float32
  public var isTrained: Bool = false

  public init() {}

  public init(
    name: String = "", shape: [Int] = [], scalarType: ScalarType = .float32, isTrained: Bool = false
  ) {
    self.name = name
    self.shape = shape
    self.scalarType = scalarType
    self.isTrained = isTrained
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension ParameterDescription: CodedMessage {
  static var protoName: String { "ParameterDescription" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__ParameterDescription>?) -> Void {
    chiasm__v1__parameter_description__init
  }

  init(_ c: Chiasm__V1__ParameterDescription) throws {
    self.init()
    name = try Read.string(c.name, "ParameterDescription.name") ?? ""
    shape = try Read.integers(c.n_dimension, c.dimension, "ParameterDescription.dimension")
    scalarType = try ScalarType(
      number: c.has_scalar != 0 ? c.scalar.rawValue : 0, in: "ParameterDescription.scalar")
    isTrained = c.has_trained != 0 && c.trained != 0
  }

  func fill(_ c: inout Chiasm__V1__ParameterDescription, _ memory: BumpMemory) {
    if !name.isEmpty { c.name = memory.string(name) }
    if !shape.isEmpty { (c.n_dimension, c.dimension) = (shape.count, memory.integers(shape)) }
    (c.has_scalar, c.scalar) = (1, Chiasm__V1__ScalarType(scalarType.number))
    if isTrained { (c.has_trained, c.trained) = (1, 1) }
  }
}

/// What a stage trains.
public struct PrepareTrainingReply: Message {
  /// Everything the stage would write into a checkpoint.
  public var parameters: [ParameterDescription] = []
  /// Held for training: copies, gradients, moments.
  public var trainingBytes: Int = 0
  /// Updates made so far, as the checkpoint resumed from says.
  public var updates: UInt64 = 0

  public init() {}

  public init(
    parameters: [ParameterDescription] = [], trainingBytes: Int = 0, updates: UInt64 = 0
  ) {
    self.parameters = parameters
    self.trainingBytes = trainingBytes
    self.updates = updates
  }

  public static func decode(_ bytes: UnsafeRawBufferPointer) throws -> Self {
    try unpack(bytes)
  }

  public func encode(into bytes: inout [UInt8]) { pack(into: &bytes) }
}

extension PrepareTrainingReply: CodedMessage {
  static var protoName: String { "PrepareTrainingReply" }
  static var initialize: (UnsafeMutablePointer<Chiasm__V1__PrepareTrainingReply>?) -> Void {
    chiasm__v1__prepare_training_reply__init
  }

  init(_ c: Chiasm__V1__PrepareTrainingReply) throws {
    self.init()
    parameters = try Read.messages(c.n_parameter, c.parameter)
    if c.has_training_bytes != 0 {
      trainingBytes = try Read.integer(c.training_bytes, "PrepareTrainingReply.training_bytes")
    }
    if c.has_updates != 0 { updates = c.updates }
  }

  func fill(_ c: inout Chiasm__V1__PrepareTrainingReply, _ memory: BumpMemory) {
    if !parameters.isEmpty {
      (c.n_parameter, c.parameter) = (parameters.count, memory.messages(parameters))
    }
    if trainingBytes != 0 {
      (c.has_training_bytes, c.training_bytes) = (1, UInt64(clamping: trainingBytes))
    }
    if updates != 0 { (c.has_updates, c.updates) = (1, updates) }
  }
}
