import Images
import Support
import Tensors
import Testing

@Suite struct NormalizationTests {
  @Test("Samples become planes, each step rounded to Float")
  func planes() throws {
    let image = RGBImage(width: 2, height: 1, pixels: [0, 128, 255, 1, 2, 3])
    let tensor = image.normalized(.imageNet)
    #expect(tensor.shape == [3, 1, 2])
    func value(_ sample: Float, _ mean: Float, _ deviation: Float) -> Float {
      (sample / 255 - mean) / deviation
    }
    #expect(
      tensor.floats == [
        value(0, 0.485, 0.229), value(1, 0.485, 0.229), value(128, 0.456, 0.224),
        value(2, 0.456, 0.224), value(255, 0.406, 0.225), value(3, 0.406, 0.225),
      ])
  }

  @Test("SigLIP's constants map to −1…1, CLIP's are its own")
  func constants() {
    let ends = RGBImage(width: 2, height: 1, pixels: [0, 0, 0, 255, 255, 255])
    #expect(ends.normalized(.sigLIP).floats == [-1, 1, -1, 1, -1, 1])
    let clip = ends.normalized(.clip).floats
    #expect(abs(clip[0] + 1.7922626) < 1e-5 && abs(clip[5] - 2.145944) < 1e-5)
  }

  @Test("The picture is written into a view of a batch, and only there")
  func batch() throws {
    let batch = Tensor(zeros: .float32, [3, 3, 2, 2])
    let image = RGBImage.patterned(2, 2)
    try image.normalized(.imageNet, into: batch[1])
    #expect(batch[1].floats == image.normalized(.imageNet).floats)
    #expect(batch[0].floats.allSatisfy { $0 == 0 } && batch[2].floats.allSatisfy { $0 == 0 })
  }

  @Test("A tensor of another shape or type is refused and left as it was")
  func otherTensor() {
    let image = RGBImage.patterned(4, 2)
    let turned = Tensor(zeros: .float32, [3, 4, 2])
    #expect(
      throws: TensorError.shapeMismatch(
        what: "the pixel tensor", expected: [3, 2, 4], found: [3, 4, 2])
    ) { try image.normalized(.imageNet, into: turned) }
    #expect(turned.floats.allSatisfy { $0 == 0 })
    #expect(throws: TensorError.self) {
      try image.normalized(.imageNet, into: Tensor(zeros: .bfloat16, [3, 2, 4]))
    }
  }

  @Test("The padding colour is the mean, rounded down")
  func padding() {
    #expect(Normalization.imageNet.padding == RGBColor(red: 123, green: 116, blue: 103))
    #expect(Normalization.clip.padding == RGBColor(red: 122, green: 116, blue: 104))
    #expect(Normalization.sigLIP.padding == RGBColor(red: 127, green: 127, blue: 127))
  }
}
