import Support
import Testing
import Training

@testable import TrainingData

@Suite struct OrderTests {
  private func order(_ count: Int, _ batch: Int, micro: Int = 1, seed: UInt64 = 42) -> EpochOrder {
    EpochOrder(
      TrainingLength(
        samples: count, globalBatchSize: batch, microBatchSize: micro, epochs: 1), seed: seed)
  }

  @Test(arguments: [(1, 1), (2, 1), (7, 8), (100, 1), (100, 4), (1001, 1), (1001, 8), (1003, 4)])
  func `an epoch has every sample once, but those that are left out`(
    _ count: Int, _ micro: Int
  ) {
    let order = order(count, 8, micro: micro)
    for epoch in 0..<3 {
      let permutation = order.permutation(epoch: epoch)
      #expect(permutation.sorted() == Array(0..<count))
      let steps = (0..<order.length.stepsPerEpoch).map { order.samples(permutation, step: $0) }
      #expect(Array(steps.joined()) == permutation.dropLast(order.length.leftOut))
      #expect(steps.allSatisfy { !$0.isEmpty })
    }
  }

  /// Made with an implementation of Philox and of the shuffle in Python.
  @Test func `the order is always the same`() {
    let order = order(12, 5)
    #expect(order.permutation(epoch: 0) == [5, 7, 11, 9, 4, 10, 6, 8, 2, 3, 1, 0])
    #expect(order.permutation(epoch: 1) == [4, 5, 0, 11, 8, 9, 7, 10, 6, 1, 2, 3])
    let other = self.order(12, 5, seed: 42 + (1 << 32))
    #expect(other.permutation(epoch: 0) == [1, 3, 9, 4, 5, 7, 11, 2, 0, 10, 6, 8])
  }

  @Test func `all orders of three are equally likely`() {
    var counts: [[Int]: Int] = [:]
    for epoch in 0..<6000 {
      counts[order(3, 1, seed: 7).permutation(epoch: epoch), default: 0] += 1
    }
    #expect(counts.count == 6)
    // Five standard deviations.
    #expect(counts.values.allSatisfy { abs($0 - 1000) < 5 * 29 })
  }

  @Test func `an epoch's last step lacks less than a micro-batch`() {
    let order = order(15, 8, micro: 4)
    let permutation = order.permutation(epoch: 0)
    #expect(order.length.stepsPerEpoch == 2)
    #expect(order.samples(permutation, step: 0).count == 8)
    #expect(order.samples(permutation, step: 1).count == 7)
    // One sample alone makes no step of eight.
    #expect(self.order(9, 8).length.stepsPerEpoch == 1)
    #expect(self.order(9, 8).samples(Array(0..<9), step: 0).count == 8)
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
