import Checkpoint
import InternVL
import Kernels
import Support
import Tensors
import Testing
import Training

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A small checkpoint and a batch to train it with.
struct TrainingCase {
  let checkpoint: String
  let imageToken: Int32
  /// A micro-batch for each sample.
  let microBatches: [(MicroBatch, pixels: Tensor?)]

  func trainer(
    threads: Int = 1, options: TrainingOptions = TrainingOptions(),
    state: (any TrainingState)? = nil, visionLayers: [Range<Int>]? = nil,
    languageLayers: [Range<Int>]? = nil, device: (any TrainingDevice)? = nil
  ) throws -> ModelTrainer {
    try ModelTrainer(
      ModelConfiguration.load(folder: checkpoint),
      weights: TrainingWeights(model: CheckpointReader(folder: checkpoint), state: state),
      device: device ?? CPUDevice(threads: threads), options: options,
      visionLayers: visionLayers, languageLayers: languageLayers, cacheTokens: 1024,
      imageToken: imageToken)
  }

  /// All samples of the case in one micro-batch.
  var packed: (MicroBatch, pixels: Tensor?) {
    let parts = microBatches.map(\.0)
    let pixels = microBatches.compactMap(\.pixels)
    let whole = MicroBatch(
      samples: parts.flatMap(\.samples), ids: parts.flatMap(\.ids), labels: parts.flatMap(\.labels),
      lossScale: parts[0].lossScale)
    guard let first = pixels.first else { return (whole, nil) }
    let all = Tensor(
      pixels.flatMap(\.floats),
      [pixels.reduce(0) { $0 + $1.shape[0] }] + first.shape.dropFirst())
    return (whole, all)
  }

  /// From samples as files have them, labels not shifted.
  init(
    checkpoint: String, imageToken: Int32,
    samples: [(ids: [Int32], labels: [Int32], pixels: Tensor?)]
  ) {
    let shifted = samples.map { Array($0.labels.dropFirst()) + [-100] }
    let count = shifted.joined().count { $0 != -100 }
    self.checkpoint = checkpoint
    self.imageToken = imageToken
    microBatches = samples.enumerated().map { index, sample in
      let tiles = sample.pixels?.shape[0] ?? 0
      return (
        MicroBatch(
          samples: [
            .init(key: UInt64(index) + 1, tokens: sample.ids.count, tiles: tiles)
          ], ids: sample.ids, labels: shifted[index], lossScale: 1 / Double(count)),
        sample.pixels
      )
    }
  }

  /// The batch that a golden case's `train` is about, without its padding.
  static func golden(_ modelCase: ModelCase) throws -> (TrainingCase, GoldenTraining) {
    let expected = try GoldenTraining.load(modelCase.folder)
    let pixels = try ["pixels", "second"].map {
      try NPY.read("\(modelCase.folder)/dump/\($0).npy")
    }
    let samples = expected.inputIDs.indices.map { index in
      let length = (expected.inputIDs[index].lastIndex { $0 != 0 } ?? -1) + 1
      return (
        Array(expected.inputIDs[index][..<length]), Array(expected.labels[index][..<length]),
        Tensor?.some(pixels[index])
      )
    }
    let trainingCase = TrainingCase(
      checkpoint: modelCase.checkpoint, imageToken: try modelCase.expectation().placeholder,
      samples: samples)
    return (trainingCase, expected)
  }

  /// The batch in `train.safetensors` of a variant.
  static func variant(_ name: String) throws -> (TrainingCase, SafetensorsFile) {
    let folder = Fixtures.path("variants/\(name)")
    let file = try SafetensorsFile(path: "\(folder)/train.safetensors")
    func integers(_ name: String) throws -> [Int] {
      try file.tensor(name).withElements(of: Int64.self) { $0.map { Int($0) } }
    }
    let (ids, labels) = (try integers("input_ids"), try integers("labels"))
    let pixels = try file.tensor("pixels")
    var (token, tile) = (0, 0)
    var samples: [(ids: [Int32], labels: [Int32], pixels: Tensor?)] = []
    for (length, tiles) in zip(try integers("lengths"), try integers("tiles")) {
      samples.append(
        (
          ids[token..<token + length].map { Int32($0) },
          labels[token..<token + length].map { Int32($0) },
          tiles > 0 ? pixels.rows(tile..<tile + tiles) : nil
        ))
      (token, tile) = (token + length, tile + tiles)
    }
    return (
      TrainingCase(checkpoint: "\(folder)/checkpoint", imageToken: 90, samples: samples), file
    )
  }
}

/// `train` of a golden case's expected.json.
struct GoldenTraining: Decodable {
  struct Step: Decodable {
    let lr: Double
    let wd: Double
    let betas: [Double]
    let eps: Double
    let first: [String: [Float]]
    let deltaL2: [String: Double]
    let lossAfter: Double

    enum CodingKeys: String, CodingKey {
      case lr, wd, betas, eps, first
      case deltaL2 = "delta_l2"
      case lossAfter = "loss_after"
    }
  }

  let inputIDs: [[Int32]]
  let labels: [[Int32]]
  let loss: Double
  let supervisedTokens: Int
  let gradNorm: Double
  let gradNorms: [String: Double]
  let gradFirst: [String: [Float]]
  let decayedByHF: [String]
  let steps: [String: Step]

  enum CodingKeys: String, CodingKey {
    case inputIDs = "input_ids"
    case labels, loss, steps
    case supervisedTokens = "supervised_tokens"
    case gradNorm = "grad_norm"
    case gradNorms = "grad_norms"
    case gradFirst = "grad_first"
    case decayedByHF = "decayed_by_hf"
  }

  static func load(_ folder: String) throws -> GoldenTraining {
    struct File: Decodable { let train: GoldenTraining }
    return try JSONDecoder().decode(
      File.self, from: Data(contentsOf: URL(fileURLWithPath: "\(folder)/expected.json"))
    ).train
  }
}

extension ModelTrainer.StepResult {
  /// The step's loss, where every micro-batch's rows count `scale`.
  func loss(scale: Double) -> Double { losses.reduce(0) { $0 + $1.sum } * scale }

  var normsByName: [String: Double] {
    Dictionary(uniqueKeysWithValues: sumsOfSquares.map { ($0.name, $0.sum.squareRoot()) })
  }
}
