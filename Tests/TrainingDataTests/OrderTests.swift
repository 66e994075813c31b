import Support
import Testing

@testable import TrainingData

@Suite struct OrderTests {
  @Test(arguments: [1, 2, 7, 100, 1001]) func `an epoch has every sample once`(_ count: Int) {
    let order = EpochOrder(count: count, globalBatchSize: 8, seed: 42)
    for epoch in 0..<3 {
      let permutation = order.permutation(epoch: epoch)
      #expect(permutation.sorted() == Array(0..<count))
      let steps = (0..<order.stepsPerEpoch).flatMap { order.samples(permutation, step: $0) }
      #expect(steps == permutation)
    }
  }

  /// Made with an implementation of Philox and of the shuffle in Python.
  @Test func `the order is always the same`() {
    let order = EpochOrder(count: 12, globalBatchSize: 5, seed: 42)
    #expect(order.permutation(epoch: 0) == [5, 7, 11, 9, 4, 10, 6, 8, 2, 3, 1, 0])
    #expect(order.permutation(epoch: 1) == [4, 5, 0, 11, 8, 9, 7, 10, 6, 1, 2, 3])
    let other = EpochOrder(count: 12, globalBatchSize: 5, seed: 42 + (1 << 32))
    #expect(other.permutation(epoch: 0) == [1, 3, 9, 4, 5, 7, 11, 2, 0, 10, 6, 8])
  }

  @Test func `all orders of three are equally likely`() {
    var counts: [[Int]: Int] = [:]
    for epoch in 0..<6000 {
      let order = EpochOrder(count: 3, globalBatchSize: 1, seed: 7)
      counts[order.permutation(epoch: epoch), default: 0] += 1
    }
    #expect(counts.count == 6)
    // Five standard deviations.
    #expect(counts.values.allSatisfy { abs($0 - 1000) < 5 * 29 })
  }

  @Test(arguments: [
    (1_267_819, 512, 1.0, 2477), (10, 4, 1.0, 3), (10, 4, 0.5, 2), (10, 4, 2.5, 8),
    (3, 8, 1.0, 1), (8, 8, 0.01, 1),
  ]) func `the last step of an epoch may have fewer samples`(
    _ count: Int, _ batch: Int, _ epochs: Double, _ steps: Int
  ) {
    let order = EpochOrder(count: count, globalBatchSize: batch, seed: 0)
    #expect(order.steps(epochs: epochs) == steps)
  }

  @Test func `a step's position follows from its number`() {
    let order = EpochOrder(count: 10, globalBatchSize: 4, seed: 0)
    #expect(order.position(ofStep: 0) == .init(epoch: 0, step: 0))
    #expect(order.position(ofStep: 2) == .init(epoch: 0, step: 2))
    #expect(order.position(ofStep: 3) == .init(epoch: 1, step: 0))
    #expect(order.samples(order.permutation(epoch: 0), step: 2).count == 2)
  }

  // MARK: Micro-batches

  private func length(_ sample: Int) -> Int { [5, 9, 2, 7, 7, 1, 3, 4, 6][sample] }

  @Test func `samples come in their order`() {
    let composer = BatchComposer(.samples(2))
    #expect(composer.compose([4, 1, 2, 0, 8], length: length) == [[4, 1], [2, 0], [8]])
    #expect(composer.compose([], length: length) == [])
  }

  @Test func `lengths are dealt evenly`() {
    let composer = BatchComposer(.groupedByLength(2))
    // 9, 7, 7, 5, 4, 2: each to the smallest sum with room.
    #expect(
      composer.compose([0, 1, 2, 3, 4, 7], length: length) == [[1, 2], [3, 0], [4, 7]])
    // Five samples do not divide into three: the sorted ones in turn.
    #expect(composer.compose([0, 1, 2, 3, 4], length: length) == [[1, 0], [3, 2], [4]])
    #expect(composer.compose([], length: length) == [])
  }

  @Test func `packs hold what fits`() {
    let composer = BatchComposer(.packed(maxTokens: 10))
    #expect(
      composer.compose([0, 1, 2, 3, 4, 5, 6, 7, 8], length: length)
        == [[0, 2, 5], [1], [3, 6], [4], [7, 8]])
    // What is longer than a pack stands alone.
    #expect(BatchComposer(.packed(maxTokens: 3)).compose([1, 2], length: length) == [[1], [2]])
  }

  @Test func `every composition keeps every sample`() {
    var random = SeededRandom(3)
    for _ in 0..<200 {
      let count = Int.random(in: 1...40, using: &random)
      let lengths = (0..<count).map { _ in Int.random(in: 1...30, using: &random) }
      let samples = Array(0..<count).shuffled(using: &random)
      let size = Int.random(in: 1...9, using: &random)
      for composition in [
        BatchComposer.Composition.samples(size), .groupedByLength(size), .packed(maxTokens: 32),
      ] {
        let batches = BatchComposer(composition).compose(samples) { lengths[$0] }
        #expect(batches.flatMap { $0 }.sorted() == Array(0..<count))
        #expect(batches.allSatisfy { !$0.isEmpty })
        switch composition {
        case .samples(let size), .groupedByLength(let size):
          #expect(batches.allSatisfy { $0.count <= size })
          #expect(batches.count == (count + size - 1) / size)
        case .packed(let limit):
          #expect(batches.allSatisfy { $0.reduce(0) { $0 + lengths[$1] } <= limit })
        }
      }
    }
  }
}
