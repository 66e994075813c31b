import Checkpoint
import Images
import Tensors

/// What samples are made with.
public struct DataOptions: Sendable, Equatable {
  public var maxSequenceLength: Int
  /// Instead of the template that the model's config.json names.
  public var template: String?
  public var pictureLimits: PictureLimits
  /// Which samples' turns are hidden from each other.
  public var separation = TurnSeparation()
  /// What pictures may show; nil: what samples say of it is not read.
  public var classes: PictureClasses?

  public init(
    maxSequenceLength: Int = 2048, template: String? = nil, pictureLimits: PictureLimits = .init()
  ) {
    self.maxSequenceLength = maxSequenceLength
    self.template = template
    self.pictureLimits = pictureLimits
  }
}

/// All samples of a meta file, repetitions included, numbered through.
///
/// The number is a sample's ``TrainingSample/key``: it depends on the meta file alone. Any thread
/// may load any sample at any time.
public final class SampleSource: Sendable {
  /// A data set as it lies in the numbers.
  public struct Dataset: Sendable {
    public let meta: MetaFile.Dataset
    public let lines: JSONLinesFile
    /// How many of its lines count, from the first.
    public let kept: Int
    public let times: Int
    /// The numbers of its samples: all kept lines, then all again, as often as they count.
    public let indices: Range<Int>
    /// The number of its first line among all kept lines of all data sets.
    let firstLine: Int
  }

  /// Samples with repetitions at most. Order and lengths of an epoch take 24 bytes of memory each.
  public static let maximumSamples = 1 << 28

  public let meta: MetaFile
  public let configuration: ModelConfiguration
  public let encoder: SampleEncoder
  public let pictures: PictureProcessor
  public let datasets: [Dataset]
  let classes: ClassReader?
  let separation: TurnSeparation
  /// Kept lines of all data sets: samples without repetitions.
  public let lineCount: Int
  /// Samples with repetitions.
  public let count: Int

  /// - Throws: ``TrainingDataError``, ``CheckpointError`` and ``TextError`` of the model folder.
  public init(meta: MetaFile, modelFolder: String, options: DataOptions = .init()) throws {
    self.meta = meta
    configuration = try ModelConfiguration.load(folder: modelFolder)
    encoder = try SampleEncoder(
      modelFolder: modelFolder, configuration: configuration, template: options.template,
      maxSequenceLength: options.maxSequenceLength)
    pictures = try PictureProcessor(
      modelFolder: modelFolder, configuration: configuration, limits: options.pictureLimits)
    separation = options.separation
    classes = try options.classes.map { [configuration, pictures] in
      try ClassReader($0, configuration, pictures)
    }
    var datasets: [Dataset] = []
    var count = 0
    var lineCount = 0
    for dataset in meta.datasets {
      let lines = try JSONLinesFile(path: dataset.annotation)
      let (kept, times) = dataset.repetition(ofLines: lines.count)
      let (samples, overflow) = kept.multipliedReportingOverflow(by: times)
      guard !overflow, samples <= SampleSource.maximumSamples - count else {
        throw TrainingDataError.tooManySamples(
          path: meta.path, dataset: dataset.name, lines: kept, times: times,
          limit: SampleSource.maximumSamples)
      }
      datasets.append(
        Dataset(
          meta: dataset, lines: lines, kept: kept, times: times,
          indices: count..<count + samples, firstLine: lineCount))
      count += samples
      lineCount += kept
    }
    guard count > 0 else { throw TrainingDataError.noSamples(path: meta.path) }
    self.datasets = datasets
    self.count = count
    self.lineCount = lineCount
  }

  public convenience init(
    metaPath: String, modelFolder: String, options: DataOptions = .init()
  ) throws {
    try self.init(
      meta: MetaFile(path: metaPath), modelFolder: modelFolder, options: options)
  }

  /// What pictures may show; nil: it is not read.
  public var classList: PictureClasses? { classes?.list }

  // MARK: Places

  /// A kept line of a data set.
  struct Place: Equatable {
    var dataset: Int
    /// In its file, from 0.
    var line: Int
  }

  func place(ofSample index: Int) -> Place {
    let dataset = SampleSource.last(datasets) { $0.indices.lowerBound <= index }
    return Place(
      dataset: dataset,
      line: (index - datasets[dataset].indices.lowerBound) % datasets[dataset].kept)
  }

  func place(ofLine line: Int) -> Place {
    let dataset = SampleSource.last(datasets) { $0.firstLine <= line }
    return Place(dataset: dataset, line: line - datasets[dataset].firstLine)
  }

  /// The number of a sample's line among all kept lines: samples of one line are repetitions.
  public func line(ofSample index: Int) -> Int {
    let place = place(ofSample: index)
    return datasets[place.dataset].firstLine + place.line
  }

  /// Where a sample is read.
  public func source(ofSample index: Int) -> TrainingSample.Source {
    source(place(ofSample: index))
  }

  func source(_ place: Place) -> TrainingSample.Source {
    let dataset = datasets[place.dataset]
    return TrainingSample.Source(
      dataset: dataset.meta.name, file: dataset.lines.path, line: place.line + 1)
  }

  /// The last data set that begins before something; empty ones share their beginning with the
  /// next, so the last is the one that holds it.
  private static func last(
    _ datasets: [Dataset], where begins: (Dataset) -> Bool
  ) -> Int {
    var low = 0
    var high = datasets.count
    while high - low > 1 {
      let middle = (low + high) / 2
      if begins(datasets[middle]) { low = middle } else { high = middle }
    }
    return low
  }

  // MARK: Samples

  /// What the line of a sample says.
  ///
  /// - Throws: ``TrainingDataError``.
  public func record(ofSample index: Int) throws -> SampleRecord {
    let place = place(ofSample: index)
    return try placing(place) { try record(place) }
  }

  func record(_ place: Place) throws -> SampleRecord {
    switch try datasets[place.dataset].lines.line(place.line) {
    case .empty:
      throw UnplacedFlaw(.emptyLine, "a line has a sample each")
    case .tooLong(let bytes):
      throw UnplacedFlaw(
        .longLine, "\(bytes) bytes, at most \(JSONLinesFile.maximumLineBytes) are read")
    case .text(let bytes): return try SampleRecord(bytes, readsClasses: classes != nil)
    }
  }

  /// A sample whose text is encoded and whose pictures' files are read, but not decoded.
  struct Opened {
    var place: Place
    var encoded: SampleEncoder.Encoded
    var files: [PictureProcessor.File]
    var tiles: [Int]
    var classes: SampleClasses?
  }

  /// - Parameter separating: whether turns are hidden from each other, where they can be.
  func open(_ place: Place, separating: Bool = false) throws -> Opened {
    let record = try record(place)
    // What is wrong with the words is said before what is wrong with the pictures.
    let turns = try SampleEncoder.turns(record)
    let (files, tiles) = try openPictures(record, place)
    let apart = separating ? try encoder.encodeSeparately(turns, tiles: tiles) : nil
    let encoded = try apart ?? encoder.encode(turns, tiles: tiles)
    return Opened(
      place: place, encoded: encoded, files: files, tiles: tiles,
      classes: try classes?.read(
        record.classes, files, tiles: tiles,
        maxTiles: datasets[place.dataset].meta.maxDynamicPatch))
  }

  /// Whether a sample's turns are hidden from each other, where they can be.
  func separates(_ index: Int) -> Bool { separation.separates(key: UInt64(index)) }

  /// Reads the files of a sample's pictures.
  func openPictures(
    _ record: SampleRecord, _ place: Place
  ) throws -> (files: [PictureProcessor.File], tiles: [Int]) {
    let dataset = datasets[place.dataset].meta
    let files = try record.images.map { try pictures.open($0, in: dataset.roots) }
    let tiles = files.map {
      pictures.tileCount(
        width: $0.width, height: $0.height, maxTiles: dataset.maxDynamicPatch)
    }
    try encoder.requireRoom(tiles: tiles)
    return (files, tiles)
  }

  /// Bytes of decoded tiles.
  func byteCount(tiles: [Int]) -> Int {
    let tile = 3 * pictures.imageSize * pictures.imageSize * MemoryLayout<Float>.size
    return tiles.reduce(0, +) * tile
  }

  /// Bytes of ids and labels.
  func byteCount(_ encoded: SampleEncoder.Encoded) -> Int { encoded.ids.count * 8 }

  /// Decodes pictures; nil: there are none.
  func decode(
    _ files: [PictureProcessor.File], tiles: [Int], _ place: Place
  ) throws -> Tensor? {
    guard !files.isEmpty else { return nil }
    let maxTiles = datasets[place.dataset].meta.maxDynamicPatch
    let size = pictures.imageSize
    let whole = Tensor(uninitialized: .float32, [tiles.reduce(0, +), 3, size, size])
    var row = 0
    for (file, tiles) in zip(files, tiles) {
      try pictures.write(
        pictures.decode(file), into: whole.rows(row..<row + tiles), maxTiles: maxTiles)
      row += tiles
    }
    return whole
  }

  func finish(_ opened: Opened, key: Int) throws -> TrainingSample {
    var sample = TrainingSample(
      key: UInt64(key), ids: opened.encoded.ids, labels: opened.encoded.labels,
      pixels: try decode(opened.files, tiles: opened.tiles, opened.place),
      source: source(opened.place))
    sample.turns = opened.encoded.turns
    sample.classes = opened.classes
    return sample
  }

  func outline(_ opened: Opened, key: Int) -> TrainingSample {
    var sample = TrainingSample(
      key: UInt64(key), ids: opened.encoded.ids, labels: opened.encoded.labels,
      tiles: opened.tiles.reduce(0, +), source: source(opened.place))
    sample.turns = opened.encoded.turns
    sample.classes = opened.classes
    return sample
  }

  /// Reads a sample: its line, its pictures.
  ///
  /// - Throws: ``TrainingDataError``; ``TrainingDataError/sample(_:)`` names data set, file and
  ///   line.
  public func load(_ index: Int) throws -> TrainingSample {
    let place = place(ofSample: index)
    return try placing(place) {
      try finish(open(place, separating: separates(index)), key: index)
    }
  }

  /// Gives flaws their place.
  func placing<Value>(_ place: Place, _ body: () throws -> Value) throws -> Value {
    do {
      return try body()
    } catch let flaw as UnplacedFlaw {
      throw TrainingDataError.sample(SampleFlaw(flaw.kind, source(place), flaw.detail))
    }
  }
}
