import Kernels
import Tensors

/// What the layers share on the way forward or back through one micro-batch.
final class TrainingPass {
  /// A product whose sum is to be added to a weight's gradient.
  struct Product {
    let x: Tensor
    let dY: Tensor
    let weight: Tensor?
    let bias: Tensor?

    func add(on device: any TrainingDevice) throws {
      try device.linearWeightGradient(x: x, dY: dY, weight: weight, bias: bias)
    }
  }

  /// Rows of a micro-batch that belong to one sample.
  struct Group {
    let key: UInt64
    let rows: Range<Int>
  }

  let device: any TrainingDevice
  private let pool: TensorPool
  private let seed: UInt64
  private let step: UInt64
  private let groups: [Group]
  /// Whether products are kept for later.
  let defers: Bool
  private(set) var products: [Product] = []

  init(
    device: any TrainingDevice, pool: TensorPool, seed: UInt64, step: UInt64, groups: [Group],
    defers: Bool
  ) {
    self.device = device
    self.pool = pool
    self.seed = seed
    self.step = step
    self.groups = groups
    self.defers = defers
  }

  func tensor(_ shape: [Int]) -> Tensor { pool.tensor(shape) }

  /// From the pass's pool, or the heap without one.
  static func tensor(_ shape: [Int], _ pass: TrainingPass?) -> Tensor {
    pass?.tensor(shape) ?? Tensor(uninitialized: .float32, shape)
  }

  func copy(_ x: Tensor) -> Tensor {
    let copy = tensor(x.shape)
    copy.copyElements(from: x)
    return copy
  }

  /// x itself, or a copy where products are kept and x will be written to before they are made.
  func keepable(_ x: Tensor) -> Tensor { defers ? copy(x) : x }

  /// dWeight += dYᵀ · x and dBias += the sum of dY's rows: now, or later. Each gradient gets its
  /// products in the same order either way.
  func addProduct(x: Tensor, dY: Tensor, weight: Tensor?, bias: Tensor?) throws {
    guard weight != nil || bias != nil else { return }
    let product = Product(x: x, dY: dY, weight: weight, bias: bias)
    if defers { products.append(product) } else { try product.add(on: device) }
  }

  /// Drops elements of x, sample by sample; y may be x.
  func dropout(_ x: Tensor, probability: Float, place: UInt64, into y: Tensor) throws {
    for group in groups where !group.rows.isEmpty {
      let random = Draws.stream(seed: seed, step: step, sample: group.key, tile: 0, place: place)
      try device.dropout(
        x.rows(group.rows), probability: probability, random: random, into: y.rows(group.rows))
    }
  }
}
