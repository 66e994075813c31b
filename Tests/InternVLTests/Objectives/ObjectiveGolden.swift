import Support
import Tensors

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// A small case of both losses with their gradients, as autograd has them in Double.
struct ObjectiveGolden: Decodable {
  struct Values: Decodable {
    let shape: [Int]
    let values: [Double]

    var tensor: Tensor { Tensor(values.map { Float($0) }, shape) }
  }

  struct PatchClasses: Decodable {
    let x, weight, bias, dx, dweight, dbias: Values
    let classes: [Int32]
    let class_weights: [Double]
    let loss: Double
  }

  struct Naming: Decodable {
    let rows, embeddings, targets, drows, dembeddings: Values
    let loss: Double
  }

  let patch_classes: PatchClasses
  let naming: Naming

  static func load() throws -> ObjectiveGolden {
    try JSONDecoder().decode(
      ObjectiveGolden.self,
      from: Data(contentsOf: URL(fileURLWithPath: Fixtures.path("objectives/golden.json"))))
  }
}
