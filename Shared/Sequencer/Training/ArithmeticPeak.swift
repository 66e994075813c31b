import Checkpoint
import InternVL
import Kernels
import Tensors
import Threads
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What this machine's processors reach.
enum ArithmeticPeak {
  /// Rows and columns of the products: large enough for full speed, small enough that many go
  /// through between two turns of another process.
  private static let size = 768
  private static let time = Duration.milliseconds(150)

  /// Floating-point operations a second of all processors together; nil where they cannot be
  /// computed.
  ///
  /// The fastest of many products. Other work on the machine slows one
  /// thread down for a moment, but all threads together nearly always: so what one thread reaches,
  /// times the processors, counts as well as what all of them are seen to reach.
  static func measured() async -> Double? {
    try? await DedicatedThread(name: "peak").run { _ in
      let cores = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
      var best = Double(cores) * (try fastest(threads: 1))
      if cores > 1 { best = max(best, try fastest(threads: cores)) }
      return best > 0 && best.isFinite ? best : nil
    } ?? nil
  }

  private static func fastest(threads: Int) throws -> Double {
    let device = try Devices.make("cpu", threads: threads)
    let x = filled()
    let weight = filled()
    let y = Tensor(uninitialized: .float32, [size, size])
    let clock = ContinuousClock()
    var shortest = Double.infinity
    let end = clock.now + time
    repeat {
      let taken = try clock.measure {
        try device.linear(x, weight: weight, bias: nil, into: y)
      }
      shortest = min(shortest, taken / .seconds(1))
    } while clock.now < end
    return 2 * Double(size * size * size) / shortest
  }

  /// Numbers whose sums of products stay of ordinary size.
  private static func filled() -> Tensor {
    let tensor = Tensor(uninitialized: .float32, [size, size])
    tensor.withElements(of: Float.self) { elements in
      for index in elements.indices { elements[index] = Float(index % 17) * 0.01 - 0.08 }
    }
    return tensor
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
    guard options.objectives.reachesImageRows else {
      return plan.microBatches.reduce(0) { sum, microBatch in
        let vision = visionLayers(tiles: microBatch.tiles).reduce(.zero, +)
        let weights = options.visionLoRA == nil ? vision.backwardWeight : 0
        return sum + vision.forward + vision.backwardInput + weights
      }
    }
    var microBatches = plan.microBatches
    if !options.objectives.answers {
      // No decoder layer works.
      for index in microBatches.indices {
        for sample in microBatches[index].samples.indices {
          microBatches[index].samples[sample].tokens = 0
        }
      }
    }
    return step(
      microBatches,
      trained: Trained(
        vision: options.trainsVision && options.visionLoRA == nil,
        projector: options.trainsProjector,
        language: options.trainsLanguage && options.languageLoRA == nil),
      adapters: Trained(
        vision: options.visionLoRA != nil, projector: false,
        language: options.languageLoRA != nil))
  }
}
