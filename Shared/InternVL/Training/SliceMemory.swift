import Kernels
import Tensors
import Training

/// What a slice keeps of the micro-batches under way.
struct SliceMemory<Saved> {
  let pool: TensorPool
  private var saved: [Int: Saved] = [:]
  private var products: [Int: [TrainingPass.Product]] = [:]

  /// - Parameter pool: whose memory is used; nil: nobody else's.
  init(sharing pool: TensorPool?) {
    self.pool = pool.map { TensorPool(sharing: $0) } ?? TensorPool()
  }

  var bytes: Int { pool.usedBytes }

  mutating func keep(_ value: Saved, of index: Int) { saved[index] = value }

  /// - Throws: ``InternVLError/unknownMicroBatch(index:)``.
  mutating func take(_ index: Int) throws -> Saved {
    guard let value = saved.removeValue(forKey: index) else {
      throw InternVLError.unknownMicroBatch(index: index)
    }
    return value
  }

  mutating func leave(_ pass: TrainingPass, of index: Int) {
    if !pass.products.isEmpty { products[index, default: []] += pass.products }
  }

  mutating func accumulate(_ index: Int, on device: any TrainingDevice) throws {
    for product in products.removeValue(forKey: index) ?? [] { try product.add(on: device) }
  }

  mutating func discard() {
    saved = [:]
    products = [:]
  }
}

extension MicroBatch {
  /// The rows of each sample's share of a tensor with `each` rows a tile.
  func pictureGroups(rowsEach each: Int) -> [TrainingPass.Group] {
    var start = 0
    return samples.map { sample in
      defer { start += sample.tiles * each }
      return TrainingPass.Group(key: sample.key, rows: start..<start + sample.tiles * each)
    }
  }

  var textGroups: [TrainingPass.Group] {
    zip(samples, sequences).map { TrainingPass.Group(key: $0.key, rows: $1) }
  }

  /// For each tile its sample, and its place among the sample's.
  var tilePlaces: [(sample: UInt64, tile: Int)] {
    samples.flatMap { sample in (0..<sample.tiles).map { (sample.key, $0) } }
  }
}
