import Checkpoint
import InternVL
import Kernels
import Tensors
import Training

/// What the layers of a model cost on this machine, by a short measurement: one layer of each part,
/// trained on one picture and a text of ordinary length.
public struct StageProfile: Sendable, Equatable {
  /// Seconds of each vision layer, the first with the patch embedding.
  public var vision: [Double]
  public var projector: Double
  /// Of each decoder layer, the last with the head; the mean of all where head and embedding table
  /// are one tensor.
  public var language: [Double]

  /// - Parameter folder: the model's, whose weights are read for the layers that are measured.
  /// - Throws: `CheckpointError`, `InternVLError`, `KernelError`.
  public static func measure(
    _ model: ModelConfiguration, _ configuration: TrainingConfiguration, folder: String
  ) throws -> StageProfile {
    let device = try Devices.makeTraining("cpu", threads: 1)
    let weights = TrainingWeights(model: try CheckpointReader(folder: folder))
    let options = TrainingOptions(configuration)
    let tokens = min(configuration.maxSequenceLength, model.imageTokenCount + 128)
    let picture = MicroBatch(samples: [.init(key: 0, tokens: model.imageTokenCount + 1, tiles: 1)])
    var text = MicroBatch(samples: [.init(key: 0, tokens: tokens, tiles: 0)])
    text.ids = Array(repeating: 0, count: tokens)
    text.labels = Array(repeating: 0, count: tokens)
    text.lossScale = 1 / Double(tokens)

    func visionLayer(_ layer: Int) throws -> Double {
      try seconds(
        VisionTrainer(
          model, layers: layer..<layer + 1, weights: weights, device: device, options: options),
        picture)
    }
    func languageLayers(_ layers: Range<Int>) throws -> Double {
      try seconds(
        LanguageTrainer(
          model, layers: layers, weights: weights, device: device, options: options,
          cacheTokens: 0, imageToken: nil), text)
    }
    /// Layers between the first and the last are all alike.
    func all(_ count: Int, _ measure: (Int) throws -> Double) throws -> [Double] {
      guard count > 0 else { return [] }
      let first = try measure(0)
      let last = count > 1 ? try measure(count - 1) : first
      let middle = count > 2 ? try measure(count / 2) : first
      return (0..<count).map { $0 == 0 ? first : $0 == count - 1 ? last : middle }
    }
    let count = model.language.layerCount
    let language: [Double]
    if model.language.tiesEmbeddings {
      // First and last layer cannot be had alone: head and embedding table are one tensor.
      language = Array(repeating: try languageLayers(0..<count) / Double(count), count: count)
    } else {
      language = try all(count) { try languageLayers($0..<$0 + 1) }
    }
    return StageProfile(
      vision: try all(model.usedVisionLayers, visionLayer),
      projector: try seconds(
        ProjectorTrainer(model, weights: weights, device: device, options: options), picture),
      language: language)
  }

  /// The shortest of a few passes forward and back.
  private static func seconds(_ slice: any TrainingSlice, _ microBatch: MicroBatch) throws -> Double
  {
    func tensor(_ shape: [Int]?) -> Tensor? {
      shape.map { shape in
        let tensor = Tensor(uninitialized: .float32, shape)
        tensor.withElements(of: Float.self) { elements in
          for index in elements.indices { elements[index] = Float(index % 17) * 0.01 - 0.08 }
        }
        return tensor
      }
    }
    let input = tensor(slice.inputShape(of: microBatch))
    let output = tensor(slice.outputShape(of: microBatch))
    let gradient = tensor(slice.outputShape(of: microBatch))
    let inputGradient = slice.needsInputGradient ? tensor(slice.inputShape(of: microBatch)) : nil
    let clock = ContinuousClock()
    var best = Double.infinity
    for round in 0..<3 {
      let time = try clock.measure {
        try slice.forward(0, microBatch, step: UInt64(round), input: input, into: output)
        if slice.hasBackward {
          _ = try slice.backward(0, gradient: gradient, into: inputGradient)
          try slice.accumulate(0)
        } else {
          _ = try slice.loss(0)
        }
      }
      best = min(best, time / .seconds(1))
    }
    return best
  }
}
