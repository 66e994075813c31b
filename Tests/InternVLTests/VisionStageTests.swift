import Checkpoint
import InternVL
import Kernels
import Tensors
import Testing

@Suite struct VisionStageTests {
  private func stage(_ layers: Range<Int>, of modelCase: ModelCase) throws -> VisionStage {
    try VisionStage(
      ModelConfiguration.load(folder: modelCase.checkpoint), layers: layers,
      checkpoint: CheckpointReader(folder: modelCase.checkpoint), device: CPUDevice(threads: 1))
  }

  @Test("A stage says what it holds")
  func description() throws {
    let whole = try stage(0..<3, of: ModelCase.golden[0])
    #expect(whole.hiddenShape == [17, 96])
    // All parameters of the encoder, as the fixture counts them, and the fitted position table.
    #expect(whole.weightBytes == (393_504 + 17 * 96) * 4)
    #expect(whole.isFirst && whole.isLast)
    let last = try stage(2..<3, of: ModelCase.golden[0])
    #expect(!last.isFirst && last.isLast)
  }

  @Test("Layers behind the selected one are not part of the model")
  func selectedLayer() throws {
    let modelCase = try #require(ModelCase.variants.first { $0.name == "variants/v11" })
    #expect(try stage(2..<3, of: modelCase).isLast)
    #expect(
      throws: InternVLError.layersOutsideModel(
        part: "vision encoder", layers: 0..<4, available: 3)
    ) { try stage(0..<4, of: modelCase) }
  }

  @Test("Only the first stage embeds")
  func wrongStage() throws {
    let later = try stage(1..<3, of: ModelCase.golden[0])
    #expect(throws: InternVLError.wrongStage(what: "embed pixels", layers: 1..<3, needed: "first"))
    {
      try later.embed(
        Tensor(zeros: .float32, [3, 56, 56]), into: Tensor(zeros: .float32, [17, 96]))
    }
  }

  @Test("Another size or type of input is refused")
  func shapes() throws {
    let stage = try stage(0..<3, of: ModelCase.golden[0])
    let hidden = Tensor(zeros: .float32, [17, 96])
    for pixels in [
      Tensor(zeros: .float32, [3, 56, 57]), Tensor(zeros: .float32, [1, 3, 56, 56]),
      Tensor(zeros: .bfloat16, [3, 56, 56]), Tensor(zeros: .float32, [0]),
    ] {
      #expect(throws: TensorError.self) { try stage.embed(pixels, into: hidden) }
    }
    for other in [Tensor(zeros: .float32, [16, 96]), Tensor(zeros: .bfloat16, [17, 96])] {
      #expect(throws: TensorError.self) { try stage.forward(other) }
    }
  }

  @Test("A cancelled call stops before its next layer")
  func cancellation() throws {
    let stage = try stage(0..<3, of: ModelCase.golden[0])
    let hidden = Tensor([Float](repeating: 1, count: 17 * 96), [17, 96])
    var asked = 0
    #expect(throws: CancellationError.self) {
      try stage.forward(hidden) {
        asked += 1
        return asked == 3
      }
    }
    #expect(asked == 3)
    let untouched = Tensor([Float](repeating: 1, count: 17 * 96), [17, 96])
    #expect(throws: CancellationError.self) { try stage.forward(untouched) { true } }
    #expect(untouched.floats.allSatisfy { $0 == 1 })
  }

  @Test("The projector refuses another shape")
  func projector() throws {
    let model = try ModelCase.golden[0].model()
    #expect(model.projector.tokenCount == 4)
    #expect(model.projector.weightBytes == 29_568 * 4)
    let rows = Tensor(zeros: .float32, [4, 64])
    #expect(throws: TensorError.self) {
      try model.projector.forward(Tensor(zeros: .float32, [16, 96]), into: rows)
    }
    #expect(throws: TensorError.self) {
      try model.projector.forward(
        Tensor(zeros: .float32, [17, 96]), into: Tensor(zeros: .float32, [5, 64]))
    }
  }
}
