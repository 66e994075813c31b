import Kernels
import Tensors
import Training

/// Holds image rows to the words of what their cells show: the cross-entropy of
/// softmax(E · u), u = r / √(mean(r²) + 1e-6), to the shares of tokens, E the embedding table.
///
/// Legend: N image rows, V vocabulary, D model width.
struct RowNaming {
  let table: MatrixWeight
  /// D ones.
  private let ones: Tensor

  static let epsilon: Float = 1e-6

  init(_ table: MatrixWeight) {
    self.table = table
    ones = Tensor([Float](repeating: 1, count: table.depth), [table.depth])
  }

  /// The loss of a micro-batch and, where asked for, its gradients.
  ///
  /// - Parameters:
  ///   - images: [N, D], as the projector gives them.
  ///   - dImages: [N, D], added to; nil: not wanted.
  ///   - dTable: [V, D], added to; nil: not wanted.
  /// - Throws: ``InternVLError/targetsDoNotFit(what:found:expected:)``, `KernelError`.
  func loss(
    _ index: Int, of targets: NamingTargets, images: Tensor, dImages: Tensor?, dTable: Tensor?,
    _ pass: TrainingPass
  ) throws -> ObjectiveLoss {
    let rows = targets.rows.map { Int($0) }
    let soft = try RowNaming.soft(targets, rows: images.shape[0])
    guard !rows.isEmpty else {
      return ObjectiveLoss(microBatch: index, group: nil, sum: 0, rows: 0, right: 0)
    }
    let device = pass.device
    let x = pass.tensor([rows.count, ones.count])
    for (place, row) in rows.enumerated() { x[place].copyElements(from: images[row]) }
    let u = pass.tensor(x.shape)
    try device.rmsNorm(x, weight: ones, epsilon: RowNaming.epsilon, into: u)
    let dU = dImages == nil ? nil : pass.tensor(x.shape)
    if let dU { try device.clear(dU) }
    let found = try device.softCrossEntropy(
      hidden: u, weight: table.rows, bias: nil, targets: soft, dHidden: dU, dWeight: dTable,
      dBias: nil)
    if let dImages, let dU {
      try device.rmsNormGradient(
        dY: dU, x: x, weight: ones, epsilon: RowNaming.epsilon, adding: false, into: dU,
        weight: nil)
      for (place, row) in rows.enumerated() { try device.add(dU[place], to: dImages[row]) }
    }
    return ObjectiveLoss(
      microBatch: index, group: nil, sum: found.reduce(0) { $0 + $1.loss }, rows: rows.count,
      right: found.count(where: \.isHit))
  }

  /// The targets of the rows one after another.
  private static func soft(_ targets: NamingTargets, rows: Int) throws -> SoftTargets {
    guard targets.counts.count == targets.rows.count else {
      throw InternVLError.targetsDoNotFit(
        what: "counts of named rows", found: targets.counts.count, expected: targets.rows.count)
    }
    let pairs = targets.counts.reduce(0) { $0 + max(0, Int($1)) }
    guard targets.counts.allSatisfy({ $0 > 0 }), pairs == targets.tokens.count,
      pairs == targets.shares.count
    else {
      throw InternVLError.targetsDoNotFit(
        what: "tokens of named rows", found: targets.tokens.count, expected: pairs)
    }
    var soft = SoftTargets()
    var start = 0
    for (place, row) in targets.rows.enumerated() {
      guard row >= 0, Int(row) < rows else {
        throw InternVLError.targetsDoNotFit(
          what: "a named row", found: Int(row), expected: rows)
      }
      let end = start + Int(targets.counts[place])
      soft.append(
        row: place, scale: Float(targets.scale),
        (start..<end).lazy.map { (column: targets.tokens[$0], share: targets.shares[$0]) })
      start = end
    }
    return soft
  }
}
