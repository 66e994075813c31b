import Tensors

/// Mean and standard deviation of each channel, for samples scaled to 0…1.
public struct Normalization: Sendable, Hashable {
  /// Red, green, blue.
  public let mean: SIMD3<Float>
  public let standardDeviation: SIMD3<Float>

  public init(mean: SIMD3<Float>, standardDeviation: SIMD3<Float>) {
    self.mean = mean
    self.standardDeviation = standardDeviation
  }

  /// All InternViT models.
  public static let imageNet = Normalization(
    mean: [0.485, 0.456, 0.406], standardDeviation: [0.229, 0.224, 0.225])
  public static let clip = Normalization(
    mean: [0.4814546, 0.4578275, 0.40821073],
    standardDeviation: [0.2686295, 0.2613025, 0.2757711])
  public static let sigLIP = Normalization(
    mean: [0.5, 0.5, 0.5], standardDeviation: [0.5, 0.5, 0.5])

  /// The colour that ``RGBImage/paddedToSquare(fill:)`` gets: floor(255 · mean), which is
  /// (123, 116, 103) for ImageNet.
  public var padding: RGBColor {
    func sample(_ mean: Float) -> UInt8 { UInt8(min(max(mean * 255, 0), 255)) }
    return RGBColor(red: sample(mean.x), green: sample(mean.y), blue: sample(mean.z))
  }

  /// What each of the 256 sample values of a channel becomes: (x / 255 − mean) / deviation,
  /// rounded to Float after each step as torchvision's `ToTensor` and `Normalize` do.
  func table(channel: Int) -> [Float] {
    (0..<256).map { (Float($0) / 255 - mean[channel]) / standardDeviation[channel] }
  }
}

extension RGBImage {
  /// Writes the picture as planes of normalized samples.
  ///
  /// - Parameter tensor: float32 [3, height, width].
  /// - Throws: ``TensorError`` when the tensor is another.
  public func normalized(_ normalization: Normalization, into tensor: Tensor) throws {
    try tensor.require(.float32, what: "the pixel tensor")
    try tensor.require(shape: [3, height, width], "the pixel tensor")
    let count = width * height
    tensor.withElements(of: Float.self) { planes in
      pixels.withUnsafeBufferPointer { pixels in
        for channel in 0..<3 {
          normalization.table(channel: channel).withUnsafeBufferPointer { table in
            let plane = UnsafeMutableBufferPointer(
              rebasing: planes[channel * count..<(channel + 1) * count])
            for index in 0..<count { plane[index] = table[Int(pixels[3 * index + channel])] }
          }
        }
      }
    }
  }

  /// The picture as a new float32 tensor [3, height, width] of normalized samples.
  public func normalized(_ normalization: Normalization) -> Tensor {
    let tensor = Tensor(uninitialized: .float32, [3, height, width])
    do { try normalized(normalization, into: tensor) } catch {
      preconditionFailure("\(error)")
    }
    return tensor
  }
}
