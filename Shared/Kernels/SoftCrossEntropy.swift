import CKernels
import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// What some rows should be near to: of each, shares of columns that sum to 1.
public struct SoftTargets: Sendable, Equatable {
  /// Where the targets of each row end in ``columns``.
  private var ends: [Int] = []
  /// The rows of the batch that have a target, in the order in which they were appended.
  public private(set) var rows: [Int] = []
  /// What each one's loss counts in the gradients.
  public private(set) var scales: [Float] = []
  public private(set) var columns: [Int32] = []
  public private(set) var shares: [Double] = []

  public init() {}

  public var count: Int { rows.count }

  public mutating func append(
    row: Int, scale: Float, _ shares: some Sequence<(column: Int32, share: Double)>
  ) {
    for (column, share) in shares {
      columns.append(column)
      self.shares.append(share)
    }
    rows.append(row)
    scales.append(scale)
    ends.append(columns.count)
  }

  /// One column has it all.
  public mutating func append(row: Int, scale: Float, column: Int32) {
    append(row: row, scale: scale, CollectionOfOne((column: column, share: 1)))
  }

  /// Where the targets of a place lie in ``columns``.
  func range(_ place: Int) -> Range<Int> { (place == 0 ? 0 : ends[place - 1])..<ends[place] }
}

/// What came of one row with a target.
public struct SoftLoss: Sendable, Equatable {
  /// −Σ share · log softmax, not scaled.
  public var loss: Double
  /// Whether no column is above the first of the target's.
  public var isHit: Bool
}

/// −Σ q · log softmax(hidden · weightᵀ + bias) of the rows that have a target q, and its
/// gradients, a chunk of such rows at a time.
///
/// hidden [T, D], weight [V, D], bias [V].
enum SoftCrossEntropy {
  static func forwardAndGradient(
    hidden: Tensor, weight: Tensor, bias: Tensor?, targets: SoftTargets, dHidden: Tensor?,
    dWeight: Tensor?, dBias: Tensor?, on device: CPUDevice
  ) throws -> [SoftLoss] {
    try hidden.requireRows(nil, "hidden states")
    let (rows, width) = (hidden.shape[0], hidden.shape[1])
    try weight.require(.float32, .bfloat16, what: "the output weight")
    guard weight.shape.count == 2, weight.shape[1] == width else {
      throw TensorError.shapeMismatch(
        what: "the output weight", expected: [weight.shape.first ?? 0, width], found: weight.shape)
    }
    let columns = weight.shape[0]
    try bias?.require(shape: [columns], "the bias")
    try dHidden?.requireRows(like: hidden, "the gradient of hidden states")
    try dWeight?.requireGradient(weight.shape, "the gradient of the output weight")
    try dBias?.requireGradient([columns], "the gradient of the bias")
    for row in targets.rows where row < 0 || row >= rows {
      throw KernelError.targetOutOfRange(row: row, rows: rows)
    }
    for column in targets.columns where column < 0 || Int(column) >= columns {
      throw KernelError.tokenOutOfRange(id: Int(column), rows: columns)
    }

    let chunkRows = min(targets.count, max(1, chunkElements / max(columns, 1)))
    guard chunkRows > 0 else { return [] }
    var losses: [SoftLoss] = []
    try device.workspace.withFloats(chunkRows * (columns + 2 * width)) { room in
      for start in stride(from: 0, to: targets.count, by: chunkRows) {
        losses += try chunk(
          start..<min(start + chunkRows, targets.count), targets, hidden: hidden, weight: weight,
          bias: bias, dHidden: dHidden, dWeight: dWeight, dBias: dBias, room: room, on: device)
      }
    }
    return losses
  }

  /// - Parameter room: At least V + 2 · D floats a row.
  private static func chunk(
    _ places: Range<Int>, _ targets: SoftTargets, hidden: Tensor, weight: Tensor, bias: Tensor?,
    dHidden: Tensor?, dWeight: Tensor?, dBias: Tensor?, room: Tensor, on device: CPUDevice
  ) throws -> [SoftLoss] {
    let (columns, width) = (weight.shape[0], weight.shape[1])
    var room = room
    func take(_ width: Int) -> Tensor {
      let count = places.count * width
      defer { room = room.rows(count..<room.count) }
      return room.rows(0..<count).reshaped([places.count, width])
    }
    let (inputs, gradients, logits) = (take(width), take(width), take(columns))
    for (index, place) in places.enumerated() {
      inputs[index].copyElements(from: hidden[targets.rows[place]])
    }
    try device.linear(inputs, weight: weight, bias: bias, into: logits)

    let base = logits.floatBase
    let kernels = device.kernels
    var losses = [SoftLoss](repeating: SoftLoss(loss: 0, isHit: false), count: places.count)
    losses.withUnsafeMutableBufferPointer { losses in
      nonisolated(unsafe) let losses = losses
      device.parallel(rows: places.count, cost: columns) { index in
        losses[index] = row(
          base + index * columns, count: columns, targets, places.lowerBound + index,
          kernels: kernels)
      }
    }

    if let dHidden {
      try device.linearInputGradient(dY: logits, weight: weight, adding: false, into: gradients)
      for (index, place) in places.enumerated() {
        try device.add(gradients[index], to: dHidden[targets.rows[place]])
      }
    }
    if dWeight != nil || dBias != nil {
      try device.linearWeightGradient(x: inputs, dY: logits, weight: dWeight, bias: dBias)
    }
    return losses
  }

  /// Logits held at a time: 32 MB.
  private static let chunkElements = 8_388_608

  /// The loss of a row, whose logits become scale · (softmax − target).
  private static func row(
    _ logits: UnsafeMutablePointer<Float>, count: Int, _ targets: SoftTargets, _ place: Int,
    kernels: ck_kernels
  ) -> SoftLoss {
    let range = targets.range(place)
    let scale = targets.scales[place]
    let maximum = kernels.greatest(logits, count)
    var own = 0.0
    var share = 0.0
    for index in range {
      let logit = Double(logits[Int(targets.columns[index])]) - Double(maximum)
      own += targets.shares[index] * logit
      share += targets.shares[index]
    }
    let isHit = range.first.map { logits[Int(targets.columns[$0])] == maximum } ?? false
    // Short sums in float32, their sum in Double.
    var sum = 0.0
    for first in stride(from: 0, to: count, by: 1024) {
      sum += Double(kernels.exponentials(logits + first, min(1024, count - first), maximum))
    }
    kernels.scale(logits, count, Float(Double(scale) * share / sum))
    for index in range {
      logits[Int(targets.columns[index])] -= Float(Double(scale) * targets.shares[index])
    }
    return SoftLoss(loss: share * log(sum) - own, isHit: isHit)
  }
}
