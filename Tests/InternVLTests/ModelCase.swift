import Checkpoint
import InternVL
import Kernels
import Support
import Tensors
import Testing

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A small checkpoint, an input, and what the reference makes of it.
struct ModelCase: Sendable, CustomTestStringConvertible {
  let name: String
  /// The folder with the checkpoint inside it.
  let folder: String

  static let golden = ["v12-tiny", "v12-sharded-bf16"].map { ModelCase(name: "golden/\($0)") }
  static let variants = [
    "mixed-bf16", "pos-interp", "ps-v2", "rope-dynamic", "rope-linear", "rope-llama3", "tied",
    "tiles", "v11", "vit300m",
  ].map { ModelCase(name: "variants/\($0)") }
  static let all = golden + variants

  private init(name: String) {
    self.name = name
    folder = Fixtures.path(name)
  }

  var testDescription: String { name }
  var checkpoint: String { "\(folder)/checkpoint" }

  func model(
    threads: Int = 1, visionLayers: [Range<Int>]? = nil, languageLayers: [Range<Int>]? = nil,
    cacheTokens: Int? = nil
  ) throws -> InternVLModel {
    try InternVLModel(
      ModelConfiguration.load(folder: checkpoint),
      checkpoint: CheckpointReader(folder: checkpoint), device: CPUDevice(threads: threads),
      visionLayers: visionLayers, languageLayers: languageLayers, cacheTokens: cacheTokens)
  }

  /// What the fixture says; tensors without their batch dimension, except pixels and vision.
  struct Expectation {
    /// [tiles, 3, H, W]
    let pixels: Tensor
    let ids: [Int32]
    let placeholder: Int32
    /// [tiles, 1 + P, C]
    let vision: Tensor
    /// [tiles · tokens, D]
    let projector: Tensor
    /// [T, V]
    let logits: Tensor
    let generated: [Int32]
    let margins: [Float]
    /// [steps, V]; golden cases have none.
    let decodeLogits: Tensor?
  }

  func expectation() throws -> Expectation {
    name.hasPrefix("golden/") ? try goldenExpectation() : try variantExpectation()
  }

  private func goldenExpectation() throws -> Expectation {
    func dump(_ name: String) throws -> Tensor { try NPY.read("\(folder)/dump/\(name).npy") }
    let expected = try GoldenFile.load(folder)
    let added = try JSONDecoder().decode(
      [String: Int32].self, from: read("checkpoint/added_tokens.json"))
    let logits = try dump("logits_all")
    return Expectation(
      pixels: try dump("pixels"), ids: expected.inputIDs,
      placeholder: try #require(added["<IMG_CONTEXT>"]), vision: try dump("vit"),
      projector: try flattened(dump("projector")), logits: flattened(logits),
      generated: expected.greedy, margins: expected.greedyMargins, decodeLogits: nil)
  }

  private func variantExpectation() throws -> Expectation {
    let file = try SafetensorsFile(path: "\(folder)/expected.safetensors")
    func ids(_ name: String) throws -> [Int32] {
      try file.tensor(name).withElements(of: Int64.self) { $0.map { Int32($0) } }
    }
    return Expectation(
      pixels: try file.tensor("pixels"), ids: try ids("input_ids"),
      placeholder: try ids("image_token")[0], vision: try file.tensor("vision"),
      projector: try flattened(file.tensor("projector")), logits: try file.tensor("logits"),
      generated: try ids("token_ids"), margins: try file.tensor("margins").floats,
      decodeLogits: try file.tensor("decode_logits"))
  }

  private func read(_ path: String) throws -> Data {
    try Data(contentsOf: URL(fileURLWithPath: "\(folder)/\(path)"))
  }

  /// The last dimension kept, all others one.
  private func flattened(_ tensor: Tensor) -> Tensor {
    let columns = tensor.shape[tensor.shape.count - 1]
    return tensor.reshaped([tensor.count / columns, columns])
  }
}

/// `expected.json` of a golden case, as far as the model's tests use it.
struct GoldenFile: Decodable {
  struct Statistics: Decodable {
    let mean: Double
    let std: Double
    let l2: Double
    let absmax: Double
    let first: [Float]
    let last: [Float]
  }

  let inputIDs: [Int32]
  let greedy: [Int32]
  let greedyMargins: [Float]
  let visionLayers: [Statistics]
  let languageLayers: [Statistics]

  enum CodingKeys: String, CodingKey {
    case inputIDs = "input_ids"
    case greedy
    case greedyMargins = "greedy_margins"
    case visionLayers = "vit_layers"
    case languageLayers = "llm_layers"
  }

  static func load(_ folder: String) throws -> GoldenFile {
    try JSONDecoder().decode(
      GoldenFile.self,
      from: Data(contentsOf: URL(fileURLWithPath: "\(folder)/expected.json")))
  }
}

/// The largest difference, over the largest magnitude expected. Infinite when shapes differ or
/// a value is not a number.
func relativeDifference(_ found: Tensor, _ expected: Tensor) -> Float {
  guard found.count == expected.count else { return .infinity }
  return relativeDifference(found.floats, expected.floats)
}

func relativeDifference(_ found: [Float], _ expected: [Float]) -> Float {
  guard found.count == expected.count, found.allSatisfy(\.isFinite) else { return .infinity }
  let largest = expected.map(abs).max() ?? 0
  let difference = zip(found, expected).map { abs($0 - $1) }.max() ?? 0
  return largest > 0 ? difference / largest : difference
}

extension Tensor {
  /// The elements' bits: equal only for the very same values.
  var bits: [UInt32] { floats.map(\.bitPattern) }
}
