import Checkpoint
import Kernels
import Support
import Tensors
import Testing
import Training

@testable import InternVL

/// Patch classes and the naming of image rows against autograd's.
@Suite struct ObjectiveGoldenTests {
  private func pass(_ threads: Int) throws -> TrainingPass {
    TrainingPass(
      device: try CPUDevice(threads: threads), pool: TensorPool(), seed: 1, step: 1, groups: [],
      defers: false)
  }

  private func expect(
    _ found: Tensor?, _ expected: ObjectiveGolden.Values, _ what: String
  ) throws {
    let found = try #require(found)
    #expect(found.shape == expected.shape)
    for (index, (a, b)) in zip(found.doubles, expected.values).enumerated() {
      #expect(abs(a - b) < 2e-6, "\(what) \(index): \(a), \(b)")
    }
  }

  @Test(arguments: [1, 3])
  func `Patch classes have the reference's loss and gradients`(_ threads: Int) throws {
    let golden = try ObjectiveGolden.load().patch_classes
    let (patches, width) = (golden.x.shape[0], golden.x.shape[1])
    let heads = try PatchHeads(
      [.init(name: "what", classWeights: golden.class_weights)], shape: [1 + patches, width],
      weights: TrainingWeights(
        model: CheckpointReader(folder: Fixtures.path("golden/v12-tiny/checkpoint"))), seed: 1)
    #expect(heads.parameters.map(\.decaysInHF) == [true, false])
    heads.parameters[0].value.copyElements(from: golden.weight.tensor)
    heads.parameters[1].value.copyElements(from: golden.bias.tensor)
    // Two tiles with the same patches behind different class tokens count half each.
    let hidden = Tensor(
      [Float](repeating: 9, count: width) + golden.x.tensor.floats
        + [Float](repeating: -2, count: width) + golden.x.tensor.floats,
      [2 * (1 + patches), width])
    let before = [Float](repeating: 0.25, count: hidden.count)
    let dHidden = Tensor(before, hidden.shape)
    let total = golden.classes.reduce(0) {
      $0 + ($1 < 0 ? 0 : 2 * golden.class_weights[Int($1)])
    }
    let targets = PatchTargets(
      group: 0, classes: golden.classes + golden.classes, scale: 1 / total)
    let loss = try heads.losses(
      4, of: [targets], hidden: hidden, dHidden: dHidden, pass(threads))
    #expect(loss.count == 1 && loss[0].microBatch == 4 && loss[0].group == 0)
    let shown = golden.classes.count { $0 > 0 }
    #expect(loss[0].rows == 2 * shown)
    #expect(abs(loss[0].sum / total - golden.loss) < 1e-6)
    try expect(heads.parameters[0].gradient, golden.dweight, "weight")
    try expect(heads.parameters[1].gradient, golden.dbias, "bias")
    for tile in 0..<2 {
      let start = tile * (1 + patches)
      #expect(dHidden[start].floats.allSatisfy { $0 == 0.25 }, "the class token has no class")
      let own = dHidden.rows(start + 1..<start + 1 + patches).floats.map { 2 * ($0 - 0.25) }
      try expect(Tensor(own, golden.dx.shape), golden.dx, "x of tile \(tile)")
    }
    let alone = try heads.losses(
      4, of: [targets], hidden: hidden, dHidden: nil, pass(threads))
    #expect(alone == loss)
  }

  @Test(arguments: [1, 3])
  func `Naming has the reference's loss and gradients`(_ threads: Int) throws {
    let golden = try ObjectiveGolden.load().naming
    let vocabulary = golden.embeddings.shape[0]
    var targets = NamingTargets()
    for row in 0..<golden.rows.shape[0] {
      let shares = golden.targets.values[row * vocabulary..<(row + 1) * vocabulary]
      let pairs = shares.enumerated().filter { $0.1 > 0 }.map {
        (token: Int32($0.0), share: $0.1)
      }
      if !pairs.isEmpty { targets.append(row: row, pairs) }
    }
    #expect(targets.rows.count == 2)
    targets.scale = 1 / Double(targets.rows.count)
    let table = ModelWeight(
      golden.embeddings.tensor, gradient: Tensor(zeros: .float32, golden.embeddings.shape))
    let naming = RowNaming(MatrixWeight(table))
    let dRows = Tensor(zeros: .float32, golden.rows.shape)
    let loss = try naming.loss(
      3, of: targets, images: golden.rows.tensor, dImages: dRows, dTable: table.gradient,
      pass(threads))
    #expect(loss.microBatch == 3 && loss.group == nil && loss.rows == 2)
    #expect(abs(loss.sum / 2 - golden.loss) < 1e-6)
    try expect(dRows, golden.drows, "rows")
    try expect(table.gradient, golden.dembeddings, "embeddings")
    let alone = try naming.loss(
      3, of: targets, images: golden.rows.tensor, dImages: nil, dTable: nil, pass(threads))
    #expect(alone == loss)
  }

  @Test func `Targets of other pictures, groups or tokens are refused`() throws {
    let heads = try PatchHeads(
      [.init(name: "what", classWeights: [1, 1])], shape: [5, 3],
      weights: TrainingWeights(
        model: CheckpointReader(folder: Fixtures.path("golden/v12-tiny/checkpoint"))), seed: 1)
    let hidden = Tensor(zeros: .float32, [5, 3])
    for (group, classes) in [
      (0, [0, 1, 0]), (1, [0, 1, 0, 1]), (-1, [0, 0, 0, 0]), (0, [0, 2, 0, 0]),
    ]
      as [(Int, [Int32])]
    {
      let targets = PatchTargets(group: group, classes: classes, scale: 1)
      let pass = try pass(1)
      #expect(throws: InternVLError.self) {
        try heads.losses(0, of: [targets], hidden: hidden, dHidden: nil, pass)
      }
    }
    let naming = RowNaming(MatrixWeight(ModelWeight(Tensor(zeros: .float32, [4, 3]))))
    func refused(_ change: (inout NamingTargets) -> Void) throws {
      var targets = NamingTargets()
      targets.append(row: 1, [(token: 2, share: 1)])
      change(&targets)
      let (images, pass) = (Tensor(zeros: .float32, [2, 3]), try pass(1))
      let wrong = targets
      #expect(throws: (any Error).self) {
        try naming.loss(0, of: wrong, images: images, dImages: nil, dTable: nil, pass)
      }
    }
    try refused { $0.rows = [2] }
    try refused { $0.rows = [-1] }
    try refused { $0.counts = [] }
    try refused { $0.counts = [2] }
    try refused { $0.counts = [-1] }
    try refused { $0.tokens = [4] }
    try refused { $0.shares = [] }
  }

  @Test func `Heads are drawn by seed and group, with the deviation that they should have`() throws
  {
    let weights = TrainingWeights(
      model: try CheckpointReader(folder: Fixtures.path("golden/v12-tiny/checkpoint")))
    func head(_ name: String, seed: UInt64) throws -> [Float] {
      let heads = try PatchHeads(
        [.init(name: name, classWeights: [Double](repeating: 1, count: 40))], shape: [5, 50],
        weights: weights, seed: seed)
      #expect(heads.parameters[1].value.floats.allSatisfy { $0 == 0 })
      return heads.parameters[0].value.floats
    }
    let drawn = try head("what", seed: 1)
    #expect(try head("what", seed: 1) == drawn)
    #expect(try head("what", seed: 2) != drawn)
    #expect(try head("colour", seed: 1) != drawn)
    let mean = drawn.reduce(0) { $0 + Double($1) } / Double(drawn.count)
    let variance = drawn.reduce(0) { $0 + Double($1) * Double($1) } / Double(drawn.count)
    #expect(abs(mean) < 0.002 && abs(variance.squareRoot() - 0.02) < 0.001)
  }
}
