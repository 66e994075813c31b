/// Looks at every sample before training: its line, its roles, its tokens, its pictures.
public struct DataCheck: Sendable {
  /// How far it looks at pictures.
  public enum Depth: Sendable {
    /// Their files' headers.
    case headers
    /// Every picture is decoded.
    case pictures
  }

  public let source: SampleSource
  public var depth = Depth.pictures
  public var workers = 2

  public init(_ source: SampleSource, depth: Depth = .pictures, workers: Int = 2) {
    self.source = source
    self.depth = depth
    self.workers = workers
  }

  /// Checks all samples, each line once, in parallel; the result does not depend on that.
  ///
  /// - Parameter progress: called now and then, from any thread, with the lines done and all.
  /// - Throws: ``TrainingDataError`` when a whole file cannot be read, and `CancellationError`.
  public func run(
    progress: (@Sendable (Int, Int) -> Void)? = nil
  ) async throws -> DataReport {
    let findings = Findings(count: source.lineCount)
    let (source, depth) = (source, depth)
    // In blocks, so that threads seldom meet.
    let block = 16
    let blocks = (source.lineCount + block - 1) / block
    try await Workers.each(blocks, workers: workers) { index in
      let lines = index * block..<min((index + 1) * block, source.lineCount)
      for line in lines where !findings.hasFailed {
        findings.put(line, Result { try DataCheck.inspect(source, line, depth) })
      }
      progress?(findings.done, source.lineCount)
    }
    if let failure = findings.failure { throw failure }
    return DataReport(source: source, figures: findings.figures, flaws: findings.flaws)
  }

  /// A flaw that spoils the sample is thrown; a lesser one comes with its figures.
  private static func inspect(
    _ source: SampleSource, _ line: Int, _ depth: Depth
  ) throws -> (SampleFigures, SampleFlaw?) {
    let place = source.place(ofLine: line)
    return try source.placing(place) {
      let opened = try source.open(place)
      if source.separation.share > 0 {
        let turns = try SampleEncoder.turns(source.record(place))
        _ = try source.encoder.encodeSeparately(turns, tiles: opened.tiles)
      }
      if depth == .pictures {
        for file in opened.files { _ = try source.pictures.decode(file) }
      }
      let ids = opened.encoded.ids
      let figures = SampleFigures(
        tokens: Int32(ids.count), imageTokens: Int32(source.encoder.imageTokens(ids)),
        learntTokens: Int32(opened.encoded.learnt), pictures: Int32(opened.files.count),
        pictureSizes: SampleFigures.hash(
          opened.files.flatMap { [$0.width, $0.height, $0.byteCount] }))
      guard opened.encoded.uncutCount > ids.count else { return (figures, nil) }
      let flaw = SampleFlaw(
        .overLong, source.source(place),
        "\(opened.encoded.uncutCount) tokens, of which \(ids.count) are used")
      return (figures, flaw)
    }
  }

  /// What the threads have found.
  private final class Findings: @unchecked Sendable {
    private let monitor = Monitor()
    private(set) var figures: [SampleFigures]
    private var found: [Int: SampleFlaw] = [:]
    private var count = 0
    private var broken: (any Error)?

    init(count: Int) {
      figures = [SampleFigures](repeating: .none, count: count)
    }

    func put(_ line: Int, _ result: Result<(SampleFigures, SampleFlaw?), any Error>) {
      monitor.locked {
        count += 1
        switch result {
        case .success((let figures, let flaw)):
          self.figures[line] = figures
          found[line] = flaw
        case .failure(TrainingDataError.sample(let flaw)): found[line] = flaw
        case .failure(let error): broken = broken ?? error
        }
      }
    }

    var done: Int { monitor.locked { count } }
    var hasFailed: Bool { failure != nil }
    var failure: (any Error)? { monitor.locked { broken } }
    var flaws: [SampleFlaw] { found.sorted { $0.key < $1.key }.map(\.value) }
  }
}

/// What a sample costs.
public struct SampleFigures: Sendable, Equatable {
  /// Cut to the limit; 0: the sample cannot be used.
  public var tokens: Int32
  /// Of these, places of image rows,
  public var imageTokens: Int32
  /// and what is learnt.
  public var learntTokens: Int32
  public var pictures: Int32
  /// A hash of the pictures' sizes in pixels and bytes.
  public var pictureSizes: UInt64 = 0

  static let none = SampleFigures(tokens: 0, imageTokens: 0, learntTokens: 0, pictures: 0)

  /// FNV-1a, 64 bits.
  static func hash(_ numbers: [Int]) -> UInt64 {
    numbers.reduce(0xCBF2_9CE4_8422_2325) { hash, number in
      withUnsafeBytes(of: Int64(number).littleEndian) {
        $0.reduce(hash) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
      }
    }
  }
  public var isUsable: Bool { tokens > 0 }
}
