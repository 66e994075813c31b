import Kernels
import Synchronization
import Tensors

/// The processor, noting products and failing when told to.
final class RecordingDevice: Device {
  struct Product: Hashable {
    let rows: Int
    /// Where the weight lies, which tells weights apart.
    let weight: UInt
  }

  struct Failure: Error {}

  private struct State {
    var products: [Product] = []
    /// Products of each call.
    var calls: [Int] = []
    var productsUntilFailure = Int.max
  }

  private let device: CPUDevice
  private let state = Mutex(State())

  init() throws { device = try CPUDevice(threads: 1) }

  var name: String { device.name }

  /// Products since the last call of this.
  func takeProducts() -> [Product] {
    state.withLock { state in
      defer { state.products = [] }
      return state.products
    }
  }

  /// How many products each call asked for, since the last call of this.
  func takeCalls() -> [Int] {
    state.withLock { state in
      defer { state.calls = [] }
      return state.calls
    }
  }

  /// Lets `count` products pass, and fails the next, once.
  func fail(after count: Int) {
    state.withLock { $0.productsUntilFailure = count }
  }

  func linear(_ x: Tensor, _ products: [LinearProduct]) throws {
    try state.withLock { state in
      state.calls.append(products.count)
      for product in products {
        state.products.append(Product(rows: x.shape[0], weight: product.weight.address))
        if state.productsUntilFailure == 0 {
          state.productsUntilFailure = .max
          throw Failure()
        }
        state.productsUntilFailure -= 1
      }
    }
    try device.linear(x, products)
  }

  func pack(_ weight: Tensor) throws -> PackedMatrix { try device.pack(weight) }

  func embed(_ ids: [Int32], table: LinearWeight, into y: Tensor) throws {
    try device.embed(ids, table: table, into: y)
  }

  func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor) throws {
    try device.rmsNorm(x, weight: weight, epsilon: epsilon, into: y)
  }

  func layerNorm(
    _ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, into y: Tensor
  ) throws {
    try device.layerNorm(x, weight: weight, bias: bias, epsilon: epsilon, into: y)
  }

  func gelu(_ x: Tensor) throws { try device.gelu(x) }

  func siluMultiply(gate: Tensor, up: Tensor, into y: Tensor) throws {
    try device.siluMultiply(gate: gate, up: up, into: y)
  }

  func addScaled(_ y: Tensor, scale: Tensor?, to x: Tensor) throws {
    try device.addScaled(y, scale: scale, to: x)
  }

  func rotate(
    _ x: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor
  ) throws {
    try device.rotate(x, heads: heads, positions: positions, cosines: cosines, sines: sines)
  }

  func bidirectionalAttention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, rowsEach: Int, into y: Tensor
  ) throws {
    try device.bidirectionalAttention(
      q: q, k: k, v: v, heads: heads, rowsEach: rowsEach, into: y)
  }

  func appendToCache(
    k: Tensor, v: Tensor, keyValueHeads: Int, spans: [AttentionSpan]
  ) throws {
    try device.appendToCache(k: k, v: v, keyValueHeads: keyValueHeads, spans: spans)
  }

  func cachedAttention(
    q: Tensor, heads: Int, keyValueHeads: Int, spans: [AttentionSpan], into y: Tensor
  ) throws {
    try device.cachedAttention(
      q: q, heads: heads, keyValueHeads: keyValueHeads, spans: spans, into: y)
  }

  func patches(_ pixels: Tensor, patch: Int, into y: Tensor) throws {
    try device.patches(pixels, patch: patch, into: y)
  }
}

extension LinearWeight {
  fileprivate var address: UInt {
    switch self {
    case .rows(let tensor): UInt(bitPattern: tensor.baseAddress)
    case .panels(let matrix): UInt(bitPattern: matrix.panels.baseAddress)
    }
  }
}
