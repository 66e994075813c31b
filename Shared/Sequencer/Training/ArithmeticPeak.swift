import Checkpoint
import InternVL
import Kernels
import Tensors
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What this machine's processors reach.
enum ArithmeticPeak {
  /// Floating-point operations a second of all processors together, measured by a few products;
  /// nil where they cannot be computed.
  static func measured() -> Double? {
    let cores = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    guard let device = try? Devices.make("cpu", threads: cores) else { return nil }
    let size = 768
    let x = Tensor(zeros: .float32, [size, size])
    let weight = Tensor(zeros: .float32, [size, size])
    let y = Tensor(uninitialized: .float32, [size, size])
    let clock = ContinuousClock()
    var best = Double.infinity
    for _ in 0..<6 {
      let time = clock.measure {
        try? device.linear(
          x, weight: weight, bias: nil, grouping: .pictures(rowsEach: size), into: y)
      }
      best = min(best, time / .seconds(1))
    }
    return best > 0 && best.isFinite ? 2 * Double(size * size * size) / best : nil
  }
}

extension ModelArithmetic {
  /// Of a model's folder.
  init(_ configuration: ModelConfiguration) {
    var shape = Shape()
    shape.visionLayers = configuration.usedVisionLayers
    shape.visionHiddenSize = configuration.vision.hiddenSize
    shape.visionIntermediateSize = configuration.vision.intermediateSize
    shape.patchSize = configuration.vision.patchSize
    shape.channels = configuration.vision.channelCount
    shape.patches = configuration.gridSize * configuration.gridSize
    shape.imageTokens = configuration.imageTokenCount
    shape.languageLayers = configuration.language.layerCount
    shape.hiddenSize = configuration.language.hiddenSize
    shape.intermediateSize = configuration.language.intermediateSize
    shape.keyValueSize = configuration.language.keyValueSize
    shape.vocabularySize = configuration.language.vocabularySize
    self.init(shape)
  }

  /// Operations that a step needs.
  func step(_ plan: StepPlan, _ options: TrainingOptions) -> Double {
    step(
      plan.microBatches,
      trained: Trained(
        vision: options.trainsVision && options.visionLoRA == nil,
        projector: options.trainsProjector,
        language: options.trainsLanguage && options.languageLoRA == nil),
      adapters: Trained(
        vision: options.visionLoRA != nil, projector: false,
        language: options.languageLoRA != nil))
  }
}
