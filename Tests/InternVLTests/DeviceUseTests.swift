import Checkpoint
import InternVL
import Kernels
import Tensors
import Testing

/// How the model uses its device: which products it asks for, and what a failed one leaves.
@Suite struct DeviceUseTests {
  private static let modelCase = ModelCase.golden[0]

  private func model(_ device: RecordingDevice) throws -> InternVLModel {
    try InternVLModel(folder: Self.modelCase.checkpoint, device: device)
  }

  @Test("Tiles are computed one at a time")
  func pictures() throws {
    let device = try RecordingDevice()
    let model = try model(device)
    _ = try model.encode(Tensor(zeros: .float32, [3, 3, 56, 56]))
    let products = device.takeProducts()
    // Patches, six products in each of three layers, two in the projector; for three tiles.
    #expect(products.count == 3 * (1 + 3 * 6 + 2))
    #expect(Set(products.map(\.rows)) == [16, 17, 4])
  }

  @Test("Products of one input are asked for together")
  func groups() throws {
    let device = try RecordingDevice()
    let model = try model(device)
    _ = device.takeCalls()
    _ = try model.encode(Tensor(zeros: .float32, [3, 56, 56]))
    // Queries, keys and values; projection; the two of the feed-forward part.
    #expect(
      device.takeCalls() == [1] + Array(repeating: [3, 1, 1, 1], count: 3).joined() + [1, 1])
    _ = try model.prefill(1, ids: [1, 2, 3])
    // Queries, keys and values; output; gate and up; down.
    #expect(device.takeCalls() == Array(repeating: [3, 1, 2, 1], count: 3).joined() + [1])
  }

  @Test("Matrices are packed, and counted as they are held")
  func weights() throws {
    let folder = Self.modelCase.checkpoint
    let configuration = try ModelConfiguration.load(folder: folder)
    let reader = try CheckpointReader(folder: folder)
    let device = try CPUDevice(threads: 1)
    let projector = try ProjectorStage(configuration, checkpoint: reader, device: device)
    let names = WeightNames.Projector(configuration)
    var expected = 0
    for weight in names.all {
      let stored = try reader.tensor(weight, neededFor: "the test")
      expected += stored.shape.count == 2 ? try device.pack(stored).byteCount : stored.byteCount
    }
    #expect(projector.weightBytes == expected)
  }

  @Test("Sequences of a step share one pass over the weights")
  func text() throws {
    let device = try RecordingDevice()
    let model = try model(device)
    for sequence: UInt64 in 1...5 { _ = try model.prefill(sequence, ids: [1, 2, 3]) }
    _ = device.takeProducts()
    _ = try model.decode((1...5).map { ($0, 9) })
    let products = device.takeProducts()
    #expect(products.allSatisfy { $0.rows == 5 })
    // Seven products in each of three layers, and the head.
    #expect(products.count == 3 * 7 + 1)
    #expect(Set(products.map(\.weight)).count == products.count)
  }

  @Test("A step longer than the scratch is computed in pieces")
  func pieces() throws {
    let device = try RecordingDevice()
    let model = try model(device)
    _ = try model.prefill(1, ids: [Int32](repeating: 3, count: LanguageStage.maximumRows + 1))
    #expect(Set(device.takeProducts().map(\.rows)) == [LanguageStage.maximumRows, 1])
  }

  @Test(
    "After a step that failed on its way, the cache counts no row of it",
    arguments: [0, 3, 8, 20])
  func failure(products: Int) throws {
    let device = try RecordingDevice()
    let model = try model(device)
    let ids: [Int32] = [5, 9, 2, 7, 7, 1]
    let expected = try model.prefill(1, ids: ids)
    // Goes back to position 2, and fails there.
    let logits = Tensor(zeros: .float32, [2, model.language[0].vocabulary])
    device.fail(after: products)
    #expect(throws: RecordingDevice.Failure.self) {
      try model.forward(
        [8, 8], imageRows: [], steps: [SequenceRows(sequence: 1, position: 2, rows: 0..<2)],
        into: logits)
    }
    #expect(model.length(of: 1) == 2)
    let again = try model.prefill(1, ids: Array(ids[2...]))
    #expect(again.bits == expected.rows(2..<6).bits)
  }

  @Test("The projector's norm has PyTorch's epsilon, which shows where features hardly vary")
  func projectorEpsilon() throws {
    let folder = Self.modelCase.checkpoint
    let configuration = try ModelConfiguration.load(folder: folder)
    let projector = try ProjectorStage(
      configuration, checkpoint: CheckpointReader(folder: folder),
      device: CPUDevice(threads: 1))
    let names = WeightNames.Projector(configuration)
    let reader = try CheckpointReader(folder: folder)
    func weight(_ weight: Weight) throws -> [Double] {
      try reader.tensor(weight, neededFor: "the test").floats.map(Double.init)
    }
    // Every patch alike: a row of the merged input is the patch four times over.
    let patch = (0..<96).map { Float($0 % 7) * 1e-3 }
    let vision = Tensor((0..<17).flatMap { _ in patch }, [17, 96])
    let rows = Tensor(zeros: .float32, [4, 64])
    try projector.forward(vision, into: rows)

    let merged = (0..<4).flatMap { _ in patch.map(Double.init) }
    let mean = merged.reduce(0, +) / 384
    let variance = merged.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 384
    let scale = try weight(names.normWeight)
    let shift = try weight(names.normBias)
    let normalized = merged.indices.map {
      (merged[$0] - mean) / (variance + 1e-5).squareRoot() * scale[$0] + shift[$0]
    }
    func linear(_ x: [Double], _ weight: [Double], _ bias: [Double]) -> [Double] {
      bias.indices.map { row in
        x.indices.reduce(bias[row]) { $0 + x[$1] * weight[row * x.count + $1] }
      }
    }
    let hidden = try linear(normalized, weight(names.fc1Weight), weight(names.fc1Bias))
      .map { $0 * 0.5 * (1 + errorFunction($0 / 2.0.squareRoot())) }
    let expected = try linear(hidden, weight(names.fc2Weight), weight(names.fc2Bias))
    for token in 0..<4 {
      #expect(relativeDifference(rows[token].floats, expected.map { Float($0) }) < 1e-5)
    }
  }

  /// erf by its series, good to 1e-12 for the small arguments here.
  private func errorFunction(_ x: Double) -> Double {
    var term = x
    var sum = x
    for n in 1..<200 {
      term *= -x * x / Double(n)
      sum += term / Double(2 * n + 1)
    }
    return sum * 2 / Double.pi.squareRoot()
  }
}
