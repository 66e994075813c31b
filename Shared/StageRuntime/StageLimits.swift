import Checkpoint
import Messages
import Tensors
import Transport

/// Bounds of what one call may bring.
enum StageLimits {
  /// Tiles of one picture.
  static let tiles = 64
  /// Rows of one language step.
  static let rows = 8192
  /// Rows of one language step whose logits are computed.
  static let logitRows = 1024
  /// Sequences of one language step.
  static let sequences = 1024
  /// Sequences whose end is remembered.
  static let remembered = 4096
  /// Sessions whose end is remembered.
  static let rememberedSessions = 64
}

extension ModelConfiguration {
  /// Class token and patches of one tile.
  var visionTokenCount: Int {
    let side = imageSize / vision.patchSize
    return 1 + side * side
  }
}

extension Payload {
  /// The one tensor that a call is about.
  func onlyTensor(_ what: String) throws -> Tensor {
    guard tensors.count == 1 else {
      throw RPCError(
        .invalidArgument, "\(tensors.count) tensors beside the message, expected one \(what)")
    }
    return tensors[0].tensor
  }
}

extension StageDescription {
  init(
    role: String, slices: [Range<Int>], of count: Int, options: StageOptions,
    memory: StageMemory, digest: String
  ) {
    self.init()
    self.role = role
    firstLayer = slices[0].lowerBound
    endLayer = slices[0].upperBound
    if slices.count > 1 {
      self.slices = slices.map { LayerRange(firstLayer: $0.lowerBound, endLayer: $0.upperBound) }
    }
    layerCount = count
    device = options.device
    threads = options.threads
    process = Int64(ProcessIdentity.current)
    weightBytes = memory.weightBytes
    workingBytes = memory.workingBytes
    modelDigest = digest
  }

}
