/// Samples in a given order, or parts of them, read ahead by threads of their own.
///
/// The order is that of the indices, whatever the number of workers. What is read ahead takes at
/// most ``window`` bytes, and one sample more; besides, each worker holds the picture it decodes.
/// Ends when it has given all samples, when one cannot be read, or when nobody holds it any more.
public final class SampleStream<Element: Sendable>: Sendable, AsyncSequence {
  /// Waits until so many bytes may be read ahead, too.
  typealias Reserve = (Int) throws -> Void

  /// Bytes read ahead.
  public let window: Int
  private let state: SampleStreamState<Element>

  /// - Parameters:
  ///   - indices: numbers of samples, in the order in which they come.
  ///   - workers: threads that read, 1 at least.
  ///   - load: reads a sample; called by any thread.
  init(
    _ indices: [Int], workers: Int, window: Int, start: Workers.Start = Workers.start,
    load: @escaping @Sendable (Int, Reserve) throws -> Element
  ) {
    self.window = window
    let state = SampleStreamState(indices, window: window, load: load)
    self.state = state
    // One thread is enough.
    var isRead = false
    var failure: (any Error)?
    for _ in 0..<Swift.min(Swift.max(workers, 1), indices.count) {
      do {
        try start { state.work() }
        isRead = true
      } catch {
        failure = error
      }
    }
    if !isRead, let failure { state.fail(failure) }
  }

  deinit { state.stop() }

  /// The next sample, nil after the last. For one task at a time; when it is cancelled, the stream
  /// ends.
  ///
  /// - Throws: ``TrainingDataError`` in the place of a sample that cannot be read, and
  ///   `CancellationError`.
  public func next() async throws -> Element? {
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { state.take($0) }
    } onCancel: {
      state.stop()
    }
  }

  /// The most bytes that were read ahead at one time.
  var peakBytes: Int { state.peakBytes }

  public func makeAsyncIterator() -> Iterator { Iterator(stream: self) }

  public struct Iterator: AsyncIteratorProtocol {
    let stream: SampleStream
    public func next() async throws -> Element? { try await stream.next() }
  }
}

extension SampleStream where Element == TrainingSample {
  /// Whole samples.
  public convenience init(
    _ source: SampleSource, _ indices: [Int], workers: Int = 2, window: Int = 256 << 20
  ) {
    self.init(indices, workers: workers, window: window) { index, reserve in
      let place = source.place(ofSample: index)
      return try source.placing(place) {
        let opened = try source.open(place, separating: source.separates(index))
        try reserve(source.byteCount(opened.encoded) + source.byteCount(tiles: opened.tiles))
        return try source.finish(opened, key: index)
      }
    }
  }

  /// Samples without their pixels.
  public convenience init(
    outlinesOf source: SampleSource, _ indices: [Int], workers: Int = 2, window: Int = 16 << 20
  ) {
    self.init(indices, workers: workers, window: window) { index, reserve in
      let place = source.place(ofSample: index)
      return try source.placing(place) {
        let opened = try source.open(place, separating: source.separates(index))
        try reserve(source.byteCount(opened.encoded))
        return source.outline(opened, key: index)
      }
    }
  }
}

extension SampleStream where Element == SamplePixels {
  /// The pixels of samples.
  public convenience init(
    pixelsOf source: SampleSource, _ indices: [Int], workers: Int = 2, window: Int = 256 << 20
  ) {
    self.init(indices, workers: workers, window: window) { index, reserve in
      let place = source.place(ofSample: index)
      return try source.placing(place) {
        let (files, tiles) = try source.openPictures(source.record(place), place)
        try reserve(source.byteCount(tiles: tiles))
        return SamplePixels(
          key: UInt64(index), tensor: try source.decode(files, tiles: tiles, place),
          source: source.source(place))
      }
    }
  }
}

/// What the workers of a stream and its reader share.
final class SampleStreamState<Element: Sendable>: @unchecked Sendable {
  private typealias Reader = CheckedContinuation<Element?, any Error>

  private let load: @Sendable (Int, SampleStream<Element>.Reserve) throws -> Element
  private let indices: [Int]
  private let window: Int
  private let monitor = Monitor()
  // Below the monitor.
  private var isStopped = false
  /// The next position that a worker takes, and the reader.
  private var claimed = 0
  private var wanted = 0
  private var reader: Reader?
  private var ready: [Int: Result<Element, any Error>] = [:]
  private var reserved: [Int: Int] = [:]
  private var heldBytes = 0
  private var peak = 0

  init(
    _ indices: [Int], window: Int,
    load: @escaping @Sendable (Int, SampleStream<Element>.Reserve) throws -> Element
  ) {
    self.indices = indices
    self.window = window
    self.load = load
  }

  var peakBytes: Int { monitor.locked { peak } }

  func stop() {
    let reader = monitor.locked {
      isStopped = true
      ready = [:]
      monitor.announce()
      defer { self.reader = nil }
      return self.reader
    }
    reader?.resume(throwing: CancellationError())
  }

  // MARK: Workers

  /// Says in the place of the first sample why none comes.
  func fail(_ error: any Error) { put(.failure(error), 0) }

  func work() {
    while let position = claim() {
      let result = Result<Element, any Error> {
        try load(indices[position]) { bytes in
          guard reserve(bytes, position) else { throw CancellationError() }
        }
      }
      put(result, position)
    }
  }

  private func claim() -> Int? {
    monitor.locked {
      // Positions far ahead cost little but their results' places, until bytes are reserved.
      while !isStopped && claimed < indices.count && claimed - wanted >= 4096 { monitor.wait() }
      guard !isStopped && claimed < indices.count else { return nil }
      defer { claimed += 1 }
      return claimed
    }
  }

  /// Waits for room in the window. The sample that is wanted next always has some: nothing behind
  /// it would leave before it came.
  private func reserve(_ bytes: Int, _ position: Int) -> Bool {
    monitor.locked {
      while !isStopped && position != wanted && heldBytes + bytes > window { monitor.wait() }
      guard !isStopped else { return false }
      reserved[position] = bytes
      heldBytes += bytes
      peak = max(peak, heldBytes)
      return true
    }
  }

  private func put(_ result: Result<Element, any Error>, _ position: Int) {
    let handOver: (Reader, Result<Element, any Error>)? = monitor.locked {
      guard !isStopped else { return nil }
      ready[position] = result
      guard position == wanted, let reader else { return nil }
      self.reader = nil
      return takeReady().map { (reader, $0) }
    }
    if let (reader, result) = handOver { reader.resume(with: result.map { $0 }) }
  }

  // MARK: Reader

  func take(_ continuation: CheckedContinuation<Element?, any Error>) {
    let answer: Result<Element?, any Error>? = monitor.locked {
      if isStopped { return .failure(CancellationError()) }
      if wanted == indices.count { return .success(nil) }
      if let result = takeReady() { return result.map { $0 } }
      precondition(reader == nil, "two tasks read one stream")
      reader = continuation
      return nil
    }
    if let answer { continuation.resume(with: answer) }
  }

  /// Takes the wanted sample out, if it is there. Locked.
  private func takeReady() -> Result<Element, any Error>? {
    guard let result = ready.removeValue(forKey: wanted) else { return nil }
    heldBytes -= reserved.removeValue(forKey: wanted) ?? 0
    wanted += 1
    // After a sample that cannot be read nothing follows.
    if case .failure = result { isStopped = true }
    monitor.announce()
    return result
  }
}
