/// A sample as it is learnt: for people to look at.
public struct SampleView: Sendable, Equatable {
  public struct Picture: Sendable, Equatable {
    public var name: String
    public var width: Int
    public var height: Int
    public var tiles: Int
  }

  /// Tokens that follow one another and are all learnt, or all not.
  public struct Span: Sendable, Equatable {
    /// Image tokens in a row are written once, with their number.
    public var text: String
    public var isLearnt: Bool
    public var tokens: Int
  }

  public var id: String?
  public var source: TrainingSample.Source
  public var pictures: [Picture]
  public var spans: [Span]
  public var tokens: Int
  /// Before the limit cut some.
  public var uncutTokens: Int
  public var imageTokens: Int
  public var learntTokens: Int
}

extension SampleSource {
  /// Reads a sample and writes its tokens out. The pictures' headers are read.
  ///
  /// - Throws: ``TrainingDataError``.
  public func view(ofSample index: Int) throws -> SampleView {
    guard (0..<count).contains(index) else {
      throw TrainingDataError.invalidOption(
        name: "sample", found: "\(index)", expected: "0 to \(count - 1)")
    }
    let place = place(ofSample: index)
    return try placing(place) {
      let opened = try open(place, separating: separates(index))
      let encoded = opened.encoded
      return SampleView(
        id: try record(place).id, source: source(place),
        pictures: zip(opened.files, opened.tiles).map {
          .init(name: $0.name, width: $0.width, height: $0.height, tiles: $1)
        },
        spans: encoder.spans(encoded), tokens: encoded.ids.count,
        uncutTokens: encoded.uncutCount, imageTokens: encoder.imageTokens(encoded.ids),
        learntTokens: encoded.learnt)
    }
  }
}

extension SampleEncoder {
  func spans(_ encoded: Encoded) -> [SampleView.Span] {
    var spans: [SampleView.Span] = []
    var start = 0
    func isLearnt(_ index: Int) -> Bool { encoded.labels[index] != SampleEncoder.ignored }
    while start < encoded.ids.count {
      var end = start + 1
      while end < encoded.ids.count, isLearnt(end) == isLearnt(start) { end += 1 }
      spans.append(
        SampleView.Span(
          text: spelling(encoded.ids[start..<end]), isLearnt: isLearnt(start),
          tokens: end - start))
      start = end
    }
    return spans
  }

  /// The tokens' own spellings one after another, which is nearer to what is learnt than decoding.
  private func spelling(_ ids: ArraySlice<Int32>) -> String {
    var bytes: [UInt8] = []
    var index = ids.startIndex
    while index < ids.endIndex {
      let run = ids[index...].prefix { $0 == ids[index] }.count
      let token = tokenizer.token(of: Int(ids[index])) ?? "<\(ids[index])>"
      if run > 1, imageTokens([ids[index]]) == 1 {
        bytes += "\(token)×\(run)".utf8
        index += run
        continue
      }
      if let byte = SampleEncoder.byte(token) {
        bytes.append(byte)
      } else {
        bytes += token.replacing("▁", with: " ").utf8
      }
      index += 1
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// What a token like `<0x0A>` stands for.
  private static func byte(_ token: String) -> UInt8? {
    guard token.utf8.count == 6, token.hasPrefix("<0x"), token.hasSuffix(">") else { return nil }
    return UInt8(token.dropFirst(3).dropLast(), radix: 16)
  }
}
