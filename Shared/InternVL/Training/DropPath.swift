import Kernels

/// What a layer's two branches count for each tile.
struct BranchFactors {
  let attention: [Float]
  let feedForward: [Float]
}

/// Stochastic depth (arXiv:1603.09382) as timm's DropPath has it: a branch of a tile is left out
/// with a probability p that rises linearly from 0 at the first layer to `rate` at the last of
/// the configuration, used or not, and counts 1 / (1 − p) times where it is kept.
struct DropPath {
  let rate: Double
  /// Layers of the configuration.
  let layerCount: Int
  let seed: UInt64

  /// - Parameter tiles: Each tile's sample and its place among the sample's.
  /// - Returns: nil for a layer that never drops anything.
  func factors(
    layer: Int, step: UInt64, tiles: [(sample: UInt64, tile: Int)]
  ) -> BranchFactors? {
    let probability = layerCount > 1 ? Float(rate * Double(layer) / Double(layerCount - 1)) : 0
    guard probability > 0 else { return nil }
    func draw(branch: Int) -> [Float] {
      let place = Draws.place("drop_path.\(layer).\(branch)")
      return tiles.map { tile in
        let random = Draws.stream(
          seed: seed, step: step, sample: tile.sample, tile: tile.tile, place: place)
        return random.uniform(0) < probability ? 0 : 1 / (1 - probability)
      }
    }
    return BranchFactors(attention: draw(branch: 0), feedForward: draw(branch: 1))
  }
}
