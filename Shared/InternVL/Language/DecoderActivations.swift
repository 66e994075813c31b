import Tensors

/// Results between the operations of a ``DecoderLayer``.
///
/// Where no backward pass needs them, several are the same memory.
///
/// Legend: T rows, D model width, Q query heads, KV key-value heads, H head size, F width of the
/// feed-forward part.
struct DecoderActivations {
  /// The layer's input [T, D], and x between the branches; nil: not kept.
  let input: Tensor?
  let middle: Tensor?
  /// [T, D]
  private(set) var normalized1: Tensor
  private(set) var normalized2: Tensor
  /// [T, Q·H]; rotated.
  let q: Tensor
  let attention: Tensor
  /// [T, KV·H]; keys are rotated.
  let k: Tensor
  let v: Tensor
  /// [T, F]
  let gate: Tensor
  let up: Tensor
  /// silu(gate) ⊙ up
  private(set) var activated: Tensor

  /// For a forward pass alone: one set serves all layers.
  init(sharing shape: DecoderLayer.Shape, rows: Int, make: ([Int]) -> Tensor) {
    (input, middle) = (nil, nil)
    normalized1 = make([rows, shape.width])
    normalized2 = normalized1
    (q, attention) = (make([rows, shape.queryWidth]), make([rows, shape.queryWidth]))
    (k, v) = (make([rows, shape.keyValueWidth]), make([rows, shape.keyValueWidth]))
    (gate, up) = (make([rows, shape.feedForward]), make([rows, shape.feedForward]))
    activated = gate
  }

  /// For a backward pass: each has memory of its own.
  init(keeping shape: DecoderLayer.Shape, rows: Int, make: ([Int]) -> Tensor) {
    (input, middle) = (make([rows, shape.width]), make([rows, shape.width]))
    (normalized1, normalized2) = (make([rows, shape.width]), make([rows, shape.width]))
    (q, attention) = (make([rows, shape.queryWidth]), make([rows, shape.queryWidth]))
    (k, v) = (make([rows, shape.keyValueWidth]), make([rows, shape.keyValueWidth]))
    (gate, up) = (make([rows, shape.feedForward]), make([rows, shape.feedForward]))
    activated = make([rows, shape.feedForward])
  }

  /// Views of rows `range` of a set that serves all layers.
  func rows(_ range: Range<Int>) -> DecoderActivations { DecoderActivations(self, range) }

  private init(_ whole: DecoderActivations, _ range: Range<Int>) {
    (input, middle) = (nil, nil)
    normalized1 = whole.normalized1.rows(range)
    normalized2 = whole.normalized2.rows(range)
    (q, attention) = (whole.q.rows(range), whole.attention.rows(range))
    (k, v) = (whole.k.rows(range), whole.v.rows(range))
    (gate, up) = (whole.gate.rows(range), whole.up.rows(range))
    activated = whole.activated.rows(range)
  }

  /// Without the results of norms and activation functions, until ``restore(_:make:)``.
  mutating func thin() {
    let none = Tensor(uninitialized: .float32, [0])
    (normalized1, normalized2, activated) = (none, none, none)
  }

  /// Gives ``DecoderLayer/recompute(_:on:)`` memory for what ``thin()`` let go.
  mutating func restore(make: ([Int]) -> Tensor) {
    guard let shape = input?.shape else { preconditionFailure("not kept") }
    (normalized1, normalized2) = (make(shape), make(shape))
    activated = make(gate.shape)
  }

  static func floats(perRowOf shape: DecoderLayer.Shape) -> Int {
    shape.width + 2 * shape.queryWidth + 2 * shape.keyValueWidth + 2 * shape.feedForward
  }
}
