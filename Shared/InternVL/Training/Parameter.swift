import Checkpoint
import Kernels
import Tensors

/// A tensor that is trained: its elements, their gradient and AdamW's moments, all float32.
///
/// Layers hold views of ``value`` and add to views of the gradient. Owned by the thread that
/// computes.
public final class Parameter: @unchecked Sendable {
  /// As the release names it; adapters as PEFT does, see ``AdapterNames``.
  public let name: String
  public let value: Tensor
  let gradientSum: GradientSum
  public let firstMoment: Tensor
  public let secondMoment: Tensor
  /// How a checkpoint stores it.
  public let storedType: ScalarType
  /// Whether Hugging Face's Trainer lets it decay: not biases, and not norms it knows.
  public let decaysInHF: Bool

  /// What is computed from the value, once for all forward passes, is computed anew by this.
  var refresh: (() -> Void)?

  /// - Parameters:
  ///   - start: the elements, unless `state` has them: float32 or bfloat16.
  ///   - state: a checkpoint to go on from.
  ///   - byRows: whether few rows get a gradient, so that only theirs is held.
  /// - Throws: what `state` throws where it lacks any of the three; `TensorError` for a tensor in
  ///   it of another shape or type.
  init(
    _ name: String, start: Tensor, storedType: ScalarType, decaysInHF: Bool,
    state: (any TrainingState)?, byRows: Bool = false
  ) throws {
    self.name = name
    self.storedType = storedType
    self.decaysInHF = decaysInHF
    func restored(_ kind: TrainingStateKind) throws -> Tensor? {
      guard let tensor = try state?.tensor(kind, of: Weight(name, start.shape)) else { return nil }
      try tensor.require(shape: start.shape, "\(kind.rawValue) of \(name)")
      try tensor.require(.float32, what: "\(kind.rawValue) of \(name)")
      let copy = Tensor(uninitialized: .float32, start.shape)
      copy.copyElements(from: tensor)
      return copy
    }
    value = try restored(.value) ?? start.widened()
    firstMoment = try restored(.firstMoment) ?? Tensor(zeros: .float32, start.shape)
    secondMoment = try restored(.secondMoment) ?? Tensor(zeros: .float32, start.shape)
    gradientSum =
      byRows ? .rows(RowGradient(start.shape)) : .whole(Tensor(zeros: .float32, start.shape))
  }

  /// The gradient as a whole: a copy, where only rows of it are held.
  public var gradient: Tensor {
    switch gradientSum {
    case .whole(let tensor): tensor
    case .rows(let rows): rows.value.dense
    }
  }

  /// Bytes of value, gradient and moments.
  public var byteCount: Int {
    switch gradientSum {
    case .whole: 4 * value.byteCount
    case .rows(let rows): 3 * value.byteCount + rows.byteCount
    }
  }

  /// To be called after ``value`` has been written to.
  public func valueDidChange() { refresh?() }
}

/// What has been added up of a parameter's gradient.
enum GradientSum {
  case whole(Tensor)
  case rows(RowGradient)
}

/// Everything a slice holds that belongs into a checkpoint.
public struct HeldTensor: Sendable {
  public let name: String
  /// float32 where it is trained, else as stored.
  public let tensor: Tensor
  public let storedType: ScalarType
  /// Whether it is an adapter's: no tensor of the release.
  public let isAdapter: Bool
  /// Beside the tensor, which is frozen then.
  var adapter: LowRankAdapter?

  init(_ name: String, _ tensor: Tensor, storedType: ScalarType, isAdapter: Bool = false) {
    self.name = name
    self.isAdapter = isAdapter
    self.tensor = tensor
    self.storedType = storedType
  }

  public var hasAdapter: Bool { adapter != nil }

  /// The tensor with its adapter's product added; nil where there is none. Nothing is computed
  /// before it is read.
  ///
  /// - Parameter value: Gives for the name and the elements of a matrix of the adapter those to
  ///   read: a copy, where updates go on meanwhile.
  public func merged(_ value: (String, Tensor) -> Tensor = { $1 }) -> MergedWeight? {
    guard let adapter else { return nil }
    return MergedWeight(
      weight: tensor, a: value(adapter.names.a, adapter.a.value),
      b: value(adapter.names.b, adapter.b.value), scale: adapter.scale)
  }
}
