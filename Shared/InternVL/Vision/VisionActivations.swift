import Tensors

/// Results between the operations of a ``VisionLayer``.
///
/// Where no backward pass needs them, several are the same memory.
///
/// Legend: T rows, C channels, F width of the feed-forward part.
struct VisionActivations {
  struct Shape {
    /// T
    var rows: Int
    /// C
    var width: Int
    /// F
    var feedForward: Int
    /// Whether queries and keys are normalized.
    var normalizesHeads: Bool
  }

  /// The layer's input [T, C], and x between the branches; nil: not kept.
  let input: Tensor?
  let middle: Tensor?
  /// [T, C]
  private(set) var normalized1: Tensor
  /// Before their norms.
  let rawQ: Tensor
  let rawK: Tensor
  /// As attention reads them.
  private(set) var q: Tensor
  private(set) var k: Tensor
  let v: Tensor
  let attention: Tensor
  /// What the branches give [T, C], before their scales; nil: not kept.
  let branch1: Tensor?
  private(set) var normalized2: Tensor
  /// [T, F], before and after GELU.
  let wide: Tensor
  private(set) var activated: Tensor
  var branch2: Tensor?

  /// For a forward pass alone: one set serves all layers.
  init(sharing shape: Shape, make: ([Int]) -> Tensor) {
    let narrow = [shape.rows, shape.width]
    (input, middle) = (nil, nil)
    normalized1 = make(narrow)
    rawQ = make(narrow)
    rawK = make(narrow)
    v = make(narrow)
    wide = make([shape.rows, shape.feedForward])
    (q, k, attention) = (rawQ, rawK, normalized1)
    (branch1, branch2) = (nil, nil)
    (normalized2, activated) = (normalized1, wide)
  }

  /// For a backward pass: each has memory of its own.
  ///
  /// - Parameter branch2: What the second branch gave, where it is known already.
  init(keeping shape: Shape, branch2: Tensor? = nil, make: ([Int]) -> Tensor) {
    let narrow = [shape.rows, shape.width]
    let broad = [shape.rows, shape.feedForward]
    (input, middle) = (make(narrow), make(narrow))
    (normalized1, normalized2) = (make(narrow), make(narrow))
    (rawQ, rawK, v) = (make(narrow), make(narrow), make(narrow))
    q = shape.normalizesHeads ? make(narrow) : rawQ
    k = shape.normalizesHeads ? make(narrow) : rawK
    (attention, branch1) = (make(narrow), make(narrow))
    self.branch2 = branch2 ?? make(narrow)
    (wide, activated) = (make(broad), make(broad))
  }

  /// Without the results of norms and activation functions, until ``restore(_:make:)``.
  mutating func thin() {
    let none = Tensor(uninitialized: .float32, [0])
    (normalized1, normalized2, q, k, activated) = (none, none, none, none, none)
  }

  /// Gives ``VisionLayer/recompute(_:on:)`` memory for what ``thin()`` let go.
  mutating func restore(_ shape: Shape, make: ([Int]) -> Tensor) {
    let narrow = [shape.rows, shape.width]
    (normalized1, normalized2) = (make(narrow), make(narrow))
    q = shape.normalizesHeads ? make(narrow) : rawQ
    k = shape.normalizesHeads ? make(narrow) : rawK
    activated = make([shape.rows, shape.feedForward])
  }

  /// Bytes of a set that serves all layers.
  static func byteCount(_ shape: Shape) -> Int {
    shape.rows * (4 * shape.width + shape.feedForward) * ScalarType.float32.byteCount
  }
}
