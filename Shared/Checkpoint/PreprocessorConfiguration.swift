/// What preprocessor_config.json says of the pixel values a model expects, by channel R, G, B:
/// (value / 255 − mean) / standard deviation.
public struct PreprocessorConfiguration: Sendable, Equatable {
  public var imageMean: [Float]
  public var imageStandardDeviation: [Float]

  /// The statistics of ImageNet, which the reference's training uses.
  public static let imageNet = PreprocessorConfiguration(
    imageMean: [0.485, 0.456, 0.406], imageStandardDeviation: [0.229, 0.224, 0.225])

  public init(imageMean: [Float], imageStandardDeviation: [Float]) {
    self.imageMean = imageMean
    self.imageStandardDeviation = imageStandardDeviation
  }

  /// Reads `preprocessor_config.json` in `folder`. Without the file or one of its keys,
  /// ImageNet's statistics count.
  ///
  /// - Throws: ``CheckpointError`` when the file is there but not readable as such.
  public static func load(folder: String) throws -> PreprocessorConfiguration {
    let path = "\(folder)/preprocessor_config.json"
    guard fileExists(path) else { return .imageNet }
    let object = try ConfigurationObject(
      readFile(path, limit: Limits.configurationBytes), file: path)
    var configuration = PreprocessorConfiguration.imageNet
    if let mean = try object.numbers("image_mean", count: 3) {
      guard mean.allSatisfy({ (-100...100).contains($0) }) else {
        throw object.invalid("image_mean", "\(mean)", "values between -100 and 100")
      }
      configuration.imageMean = mean.map { Float($0) }
    }
    if let deviation = try object.numbers("image_std", count: 3) {
      guard deviation.allSatisfy({ (1e-6...100).contains($0) }) else {
        throw object.invalid("image_std", "\(deviation)", "values above 0, up to 100")
      }
      configuration.imageStandardDeviation = deviation.map { Float($0) }
    }
    return configuration
  }

  func json(imageSize: Int) -> JSONValue {
    .object([
      ("crop_size", .integer(imageSize)),
      ("do_center_crop", .boolean(true)),
      ("do_normalize", .boolean(true)),
      ("do_resize", .boolean(true)),
      ("feature_extractor_type", .string("CLIPFeatureExtractor")),
      ("image_mean", .array(imageMean.map { .number(shortest($0)) })),
      ("image_std", .array(imageStandardDeviation.map { .number(shortest($0)) })),
      ("resample", .integer(3)),
      ("size", .integer(imageSize)),
    ])
  }
}
