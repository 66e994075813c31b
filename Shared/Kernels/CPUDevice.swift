import Tensors
import CKernels

/// The processor: kernels of ``CKernels``, spread over threads of our own.
public final class CPUDevice: Device, @unchecked Sendable {
  /// `cpu`, or `cpu:bf16`, which rounds the inputs of products by bfloat16 weights.
  public var name: String { "\(DeviceName.cpu(roundsInputs: roundsInputs))" }
  let pool: ThreadPool
  /// Immutable and static, which is why the class may cross threads.
  let kernels: ck_kernels
  /// Whether the inputs of products by packed bfloat16 weights are rounded to bfloat16, as they
  /// are where a whole model runs in bfloat16. Sums and everything else stay in float32.
  let roundsInputs: Bool
  let workspace = Workspace()
  /// Holds inputs of products, packed.
  let inputs = Workspace()

  /// - Parameters:
  ///   - threads: threads that compute, the caller among them; at least 1.
  ///   - pinned: binds the others to processors, for a process that has the machine to itself.
  ///   - roundsInputs: rounds the inputs of products by packed bfloat16 weights to bfloat16:
  ///     about twice as fast where the processor has an instruction for it.
  /// - Throws: ``KernelError/threadsUnavailable(count:code:)``.
  public convenience init(
    threads: Int, pinned: Bool = false, roundsInputs: Bool = false
  ) throws {
    try self.init(
      pool: ThreadPool(threads: threads, pinned: pinned), kernels: ck_kernels_best().pointee,
      roundsInputs: roundsInputs)
  }

  init(pool: ThreadPool, kernels: ck_kernels, roundsInputs: Bool = false) {
    self.pool = pool
    self.kernels = kernels
    self.roundsInputs = roundsInputs
  }

  /// The instruction set in use: `avx512-bf16`, `avx512-vnni`, `avx512`, `avx2-vnni`, `avx2` or `plain`.
  public var instructionSet: String { String(cString: kernels.name) }

  public func linear(_ x: Tensor, _ products: [LinearProduct]) throws {
    try Linear.forward(x, products, on: self)
  }

  public func pack(_ weight: Tensor) throws -> PackedMatrix {
    try Packing.pack(weight, on: self)
  }

  public func embed(_ ids: [Int32], table: LinearWeight, into y: Tensor) throws {
    try Embedding.forward(ids, table: table, into: y, on: self)
  }

  public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float, into y: Tensor) throws {
    try RMSNorm.forward(x, weight: weight, epsilon: epsilon, into: y, on: self)
  }

  public func layerNorm(
    _ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, into y: Tensor
  ) throws {
    try LayerNorm.forward(x, weight: weight, bias: bias, epsilon: epsilon, into: y, on: self)
  }

  public func gelu(_ x: Tensor) throws {
    try GELU.forward(x, on: self)
  }

  public func siluMultiply(gate: Tensor, up: Tensor, into y: Tensor) throws {
    try SiLUMultiply.forward(gate: gate, up: up, into: y, on: self)
  }

  public func addScaled(_ y: Tensor, scale: Tensor?, to x: Tensor) throws {
    try Residual.forward(y, scale: scale, to: x, on: self)
  }

  public func rotate(
    _ x: Tensor, heads: Int, positions: [Int], cosines: Tensor, sines: Tensor
  ) throws {
    try RotaryEmbedding.forward(
      x, heads: heads, positions: positions, cosines: cosines, sines: sines, on: self)
  }

  public func bidirectionalAttention(
    q: Tensor, k: Tensor, v: Tensor, heads: Int, rowsEach: Int, into y: Tensor
  ) throws {
    try BidirectionalAttention.forward(
      q: q, k: k, v: v, heads: heads, rowsEach: rowsEach, into: y, on: self)
  }

  public func appendToCache(
    k: Tensor, v: Tensor, keyValueHeads: Int, spans: [AttentionSpan]
  ) throws {
    try KeyValueCache.append(
      k: k, v: v, keyValueHeads: keyValueHeads, spans: spans, on: self)
  }

  public func cachedAttention(
    q: Tensor, heads: Int, keyValueHeads: Int, spans: [AttentionSpan], into y: Tensor
  ) throws {
    try CachedAttention.forward(
      q: q, heads: heads, keyValueHeads: keyValueHeads, spans: spans, into: y, on: self)
  }

  public func patches(_ pixels: Tensor, patch: Int, into y: Tensor) throws {
    try Patches.forward(pixels, patch: patch, into: y, on: self)
  }
}
