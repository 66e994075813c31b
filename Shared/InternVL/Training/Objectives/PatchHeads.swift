import Checkpoint
import Kernels
import Tensors
import Training

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// The heads that say what patches show, over the rows after the last vision layer.
///
/// For a patch's row x: y = x / √(mean(x²) + 1e-6), and for each group of classes
/// weight · y + bias, whose cross-entropy counts by the weight of the class. No part of the model:
/// they teach the vision encoder, and are gone when it serves.
///
/// Legend: n tiles, P patches of a tile, R = 1 + P rows of it, C channels, K classes of a group.
struct PatchHeads {
  private struct Head {
    let weight: Parameter
    let bias: Parameter
    let classWeights: [Double]
  }

  let parameters: [Parameter]
  private let heads: [Head]
  /// P
  private let patches: Int
  /// C ones.
  private let ones: Tensor

  static let epsilon: Float = 1e-6

  /// - Parameters:
  ///   - shape: [R, C] of a tile.
  ///   - weights: whose model folder may have heads of an earlier run, which these begin as where
  ///     the shapes fit.
  /// - Throws: `CheckpointError` of such a file, and what the state throws.
  init(
    _ groups: [TrainingObjectives.Group], shape: [Int], weights: TrainingWeights, seed: UInt64
  ) throws {
    patches = shape[0] - 1
    let width = shape[1]
    ones = Tensor([Float](repeating: 1, count: width), [width])
    let file = try ObjectivesFolder.patchClasses(of: weights.model.folder)
    heads = try groups.map { group in
      let count = group.classWeights.count
      let kept = try file?.head(of: group.name, classes: count, width: width)
      func parameter(_ kind: ObjectivesFolder.Kind, _ start: Tensor) throws -> Parameter {
        try Parameter(
          ObjectivesFolder.parameter(kind, of: group.name), start: start, storedType: .float32,
          decaysInHF: kind == .weight, state: weights.state)
      }
      return Head(
        weight: try parameter(
          .weight, kept?.weight ?? PatchHeads.drawn(group.name, [count, width], seed)),
        bias: try parameter(.bias, kept?.bias ?? Tensor(zeros: .float32, [count])),
        classWeights: group.classWeights)
    }
    parameters = heads.flatMap { [$0.weight, $0.bias] }
  }

  /// N(0, 0.02²): element i of a group is the same on every machine.
  private static func drawn(_ group: String, _ shape: [Int], _ seed: UInt64) -> Tensor {
    let key = Draws.mix(Draws.place("objectives.\(group)") ^ Draws.mix(seed))
    let values = (0..<shape.reduce(1, *)).map { index -> Float in
      // Box and Muller, one of each two.
      let first = Draws.mix(key &+ UInt64(2 * index) &* 0x9E37_79B9_7F4A_7C15)
      let second = Draws.mix(key &+ UInt64(2 * index + 1) &* 0x9E37_79B9_7F4A_7C15)
      let radius = (-2 * log((Double(first >> 11) + 1) * 0x1p-53)).squareRoot()
      return Float(0.02 * radius * cos(2 * Double.pi * Double(second >> 11) * 0x1p-53))
    }
    return Tensor(values, shape)
  }

  /// The losses of a micro-batch and, where asked for, their gradients.
  ///
  /// - Parameters:
  ///   - hidden: [n·R, C], after the last layer.
  ///   - dHidden: [n·R, C], added to, as are the gradients of the heads; nil: the losses alone.
  /// - Throws: ``InternVLError/targetsDoNotFit(what:found:expected:)``, `KernelError`.
  func losses(
    _ index: Int, of targets: [PatchTargets], hidden: Tensor, dHidden: Tensor?,
    _ pass: TrainingPass
  ) throws -> [ObjectiveLoss] {
    let device = pass.device
    let (rowsEach, width) = (patches + 1, ones.count)
    let tiles = hidden.shape[0] / rowsEach
    let x = pass.tensor([tiles * patches, width])
    for tile in 0..<tiles {
      x.rows(tile * patches..<(tile + 1) * patches)
        .copyElements(from: hidden.rows(tile * rowsEach + 1..<(tile + 1) * rowsEach))
    }
    let y = pass.tensor(x.shape)
    try device.rmsNorm(x, weight: ones, epsilon: PatchHeads.epsilon, into: y)
    let dY = dHidden == nil ? nil : pass.tensor(x.shape)
    if let dY { try device.clear(dY) }
    let losses = try targets.map { targets in
      try loss(index, targets, y, dY: dY, on: device)
    }
    guard let dHidden, let dY else { return losses }
    try device.rmsNormGradient(
      dY: dY, x: x, weight: ones, epsilon: PatchHeads.epsilon, adding: false, into: dY,
      weight: nil)
    for tile in 0..<tiles {
      try device.add(
        dY.rows(tile * patches..<(tile + 1) * patches),
        to: dHidden.rows(tile * rowsEach + 1..<(tile + 1) * rowsEach))
    }
    return losses
  }

  /// One group's.
  private func loss(
    _ index: Int, _ targets: PatchTargets, _ y: Tensor, dY: Tensor?,
    on device: any TrainingDevice
  ) throws -> ObjectiveLoss {
    guard heads.indices.contains(targets.group), targets.classes.count == y.shape[0] else {
      throw InternVLError.targetsDoNotFit(
        what: "classes of group \(targets.group)", found: targets.classes.count,
        expected: heads.indices.contains(targets.group) ? y.shape[0] : 0)
    }
    let head = heads[targets.group]
    var known = SoftTargets()
    for (row, number) in targets.classes.enumerated() where number >= 0 {
      guard Int(number) < head.classWeights.count else {
        throw InternVLError.targetsDoNotFit(
          what: "a class of group \(targets.group)", found: Int(number),
          expected: head.classWeights.count)
      }
      let scale = targets.scale * head.classWeights[Int(number)]
      known.append(row: row, scale: Float(scale), column: number)
    }
    let found = try device.softCrossEntropy(
      hidden: y, weight: head.weight.value, bias: head.bias.value, targets: known, dHidden: dY,
      dWeight: dY == nil ? nil : head.weight.gradient,
      dBias: dY == nil ? nil : head.bias.gradient)
    var loss = ObjectiveLoss(
      microBatch: index, group: targets.group, sum: 0, rows: 0, right: 0)
    for (row, found) in zip(known.rows, found) {
      let number = Int(targets.classes[row])
      loss.sum += head.classWeights[number] * found.loss
      if number > 0 {
        loss.rows += 1
        if found.isHit { loss.right += 1 }
      }
    }
    return loss
  }
}
