import Support
import Testing

@testable import TrainingData

@Suite struct StreamTests {
  private func source(_ folder: DataFolder, count: Int) throws -> SampleSource {
    try folder.copy("golden/v12-tiny/image.jpg", to: "image.jpg")
    try folder.copy("golden/v12-tiny/second.jpg", to: "second.jpg")
    let images = [#""image.jpg""#, nil, #"["second.jpg"]"#, #""second.jpg""#]
    return try folder.source(
      (0..<count).map { line("What is number \($0)?", "It is \($0).", image: images[$0 % 4]) })
  }

  @Test(arguments: [1, 4, 13]) func `the order is that of the indices`(_ workers: Int) async throws
  {
    let folder = try DataFolder()
    let source = try source(folder, count: 24)
    var random = SeededRandom(1)
    let indices = (0..<60).map { _ in Int.random(in: 0..<24, using: &random) }
    var found: [Int] = []
    for try await sample in SampleStream(source, indices, workers: workers) {
      let alone = try source.load(Int(sample.key))
      #expect(sample.ids == alone.ids && sample.labels == alone.labels)
      #expect((sample.pixels == nil) == (alone.pixels == nil))
      if let pixels = sample.pixels, let expected = alone.pixels {
        #expect(pixels.hasSameBits(as: expected))
      }
      found.append(Int(sample.key))
    }
    #expect(found == indices)
  }

  @Test func `outlines and pixels are samples in two parts`() async throws {
    let folder = try DataFolder()
    let source = try source(folder, count: 8)
    let indices = [3, 1, 0, 2, 2, 7]
    let outlines = SampleStream(outlinesOf: source, indices, workers: 3)
    let pixels = SampleStream(pixelsOf: source, indices, workers: 3, window: 1)
    for index in indices {
      let whole = try source.load(index)
      let outline = try #require(try await outlines.next())
      #expect(outline.key == whole.key && outline.source == whole.source)
      #expect(outline.ids == whole.ids && outline.labels == whole.labels)
      #expect(outline.tiles == whole.tiles && outline.pixels == nil)
      let part = try #require(try await pixels.next())
      #expect(part.key == whole.key && part.source == whole.source)
      #expect(part.tiles == whole.tiles)
      if let tensor = part.tensor, let expected = whole.pixels {
        #expect(tensor.hasSameBits(as: expected))
      } else {
        #expect(part.tensor == nil && whole.pixels == nil)
      }
    }
    #expect(try await outlines.next() == nil)
    #expect(try await pixels.next() == nil)
    #expect(outlines.peakBytes < 37_632)
  }

  @Test func `what is read ahead stays in the window`() async throws {
    let folder = try DataFolder()
    let source = try source(folder, count: 24)
    // A picture has 37,632 bytes.
    let window = 100_000
    let stream = SampleStream(source, Array(0..<24), workers: 4, window: window)
    var count = 0
    while try await stream.next() != nil { count += 1 }
    #expect(count == 24)
    #expect(stream.peakBytes > 37_632)
    #expect(stream.peakBytes <= window + 40_000)
  }

  @Test func `a window smaller than a sample still lets it through`() async throws {
    let folder = try DataFolder()
    let source = try source(folder, count: 8)
    let stream = SampleStream(source, Array(0..<8), workers: 3, window: 1)
    var count = 0
    while try await stream.next() != nil { count += 1 }
    #expect(count == 8)
  }

  @Test func `a bad sample is an error in its place, and the end`() async throws {
    let folder = try DataFolder()
    let source = try folder.source(
      [line("a", image: nil), line("b", image: nil), "{", line("c", image: nil)])
    let stream = SampleStream(source, [1, 0, 2, 3], workers: 3)
    #expect(try await stream.next()?.key == 1)
    #expect(try await stream.next()?.key == 0)
    do {
      _ = try await stream.next()
      Issue.record("a torn line was read")
    } catch TrainingDataError.sample(let flaw) {
      #expect(flaw.kind == .invalidJSON)
      #expect(flaw.source == .init(dataset: "some", file: "\(folder.path)/a.jsonl", line: 3))
    }
    await #expect(throws: CancellationError.self) { try await stream.next() }
  }

  @Test func `no indices are no samples`() async throws {
    let folder = try DataFolder()
    let stream = SampleStream(try source(folder, count: 1), [])
    #expect(try await stream.next() == nil)
    #expect(try await stream.next() == nil)
  }

  @Test func `a reader that is cancelled waits no longer`() async throws {
    let folder = try DataFolder()
    let source = try source(folder, count: 24)
    let task = Task {
      let stream = SampleStream(source, (0..<100_000).map { $0 % 24 }, workers: 2)
      var count = 0
      while try await stream.next() != nil { count += 1 }
      return count
    }
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
  }
}
