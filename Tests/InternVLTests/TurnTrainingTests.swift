import Kernels
import Support
import Tensors
import Testing
import Training

@testable import InternVL

/// Turns that are hidden from each other behind what they share.
@Suite struct TurnTrainingTests {
  /// Samples of a variant whose last tokens are cut into turns: together, and each turn as a
  /// sample of its own that begins like the first.
  private struct Turns {
    let trainingCase: TrainingCase
    var together: [(MicroBatch, pixels: Tensor?)] = []
    var alone: [(MicroBatch, pixels: Tensor?)] = []
    /// Every turn's rows in `together`, by micro-batch.
    var turns: [[Range<Int>]] = []

    init(_ name: String) throws {
      trainingCase = try TrainingCase.variant(name).0
      var random = SeededRandom(9)
      for (index, (microBatch, pixels)) in trainingCase.microBatches.enumerated() {
        // Behind the last image row.
        let last = microBatch.ids.lastIndex { $0 < 0 || $0 == trainingCase.imageToken }
        let prefix = (last ?? 1) + 2
        let lengths = [4, 1 + index, 7]
        let ids = (0..<lengths.reduce(0, +)).map { _ in Int32.random(in: 0..<80, using: &random) }
        let beginning = Array(
          (microBatch.ids + [Int32](repeating: 3, count: prefix)).prefix(prefix))
        let silence = [Int32](repeating: -100, count: prefix)
        var sample = microBatch.samples[0]
        (sample.tokens, sample.turns) = (prefix + ids.count, lengths)
        var whole = MicroBatch(
          samples: [sample], ids: beginning + ids, labels: silence, lossScale: 0.1)
        var start = 0
        turns.append([])
        for length in lengths {
          let own = Array(ids[start..<start + length])
          let labels =
            own.dropFirst().map { $0.isMultiple(of: 3) ? -100 : $0 } + [Int32(-100)]
          whole.labels += labels
          alone.append(
            (
              MicroBatch(
                samples: [.init(key: sample.key, tokens: prefix + length, tiles: sample.tiles)],
                ids: beginning + own, labels: silence + labels, lossScale: 0.1), pixels
            ))
          turns[index].append(prefix + start..<prefix + start + length)
          start += length
        }
        together.append((whole, pixels))
      }
    }
  }

  private static let variants = ["vit300m", "ps-v2", "pos-interp"]

  @Test("What is learnt is what each turn would teach as a sample of its own", arguments: variants)
  func alone(_ name: String) throws {
    let turns = try Turns(name)
    for recompute in Recompute.allCases {
      var options = TrainingOptions()
      options.recompute = recompute
      let (together, alone) = (
        try turns.trainingCase.trainer(options: options),
        try turns.trainingCase.trainer(options: options)
      )
      let found = try together.step(1, microBatches: turns.together)
      let expected = try alone.step(1, microBatches: turns.alone)
      #expect(found.losses.map(\.rows).reduce(0, +) == expected.losses.map(\.rows).reduce(0, +))
      let (loss, expectedLoss) = (found.loss(scale: 0.1), expected.loss(scale: 0.1))
      #expect(abs(loss - expectedLoss) < 1e-12 * expectedLoss)
      for (a, b) in zip(together.parameters, alone.parameters) {
        let (a, b) = (a.gradient.floats, b.gradient.floats)
        let greatest = b.map(abs).max() ?? 0
        #expect(greatest > 0)
        let worst = zip(a, b).reduce(0) { max($0, abs($1.0 - $1.1)) }
        #expect(worst <= 2e-5 * greatest + 1e-9, "\(recompute): \(worst) of \(greatest)")
      }
    }
  }

  @Test("A turn that changes leaves the others' rows as they were", arguments: variants)
  func hidden(_ name: String) throws {
    let turns = try Turns(name)
    let trainer = try turns.trainingCase.trainer(languageLayers: [0..<1, 1..<2])
    func hidden(_ microBatch: MicroBatch, _ pixels: Tensor?) throws -> Tensor {
      defer { for slice in trainer.slices { slice.discard() } }
      var input = pixels
      for slice in trainer.slices.dropLast() {
        let output = slice.outputShape(of: microBatch).map { Tensor(uninitialized: .float32, $0) }
        try slice.forward(0, microBatch, step: 1, input: input, into: output)
        input = output
      }
      return try #require(input)
    }
    for ((microBatch, pixels), rows) in zip(turns.together, turns.turns) {
      let before = try hidden(microBatch, pixels)
      for changed in rows.indices {
        var other = microBatch
        for row in rows[changed] { other.ids[row] = (other.ids[row] + 1) % 80 }
        let after = try hidden(other, pixels)
        #expect(before.rows(0..<rows[0].lowerBound).bits == after.rows(0..<rows[0].lowerBound).bits)
        for (turn, rows) in rows.enumerated() {
          #expect((before.rows(rows).bits == after.rows(rows).bits) == (turn != changed))
        }
      }
    }
  }

  @Test("Every recomputation, number of threads and split gives the same bits", arguments: variants)
  func bits(_ name: String) throws {
    let turns = try Turns(name)
    func trace(_ trainer: ModelTrainer) throws -> TrainingBitsTests.Trace {
      var trace = TrainingBitsTests.Trace()
      for step in 1...2 {
        trace.add(try trainer.step(UInt64(step), microBatches: turns.together), trainer)
        try trainer.update(learningRate: 1e-3, updateNumber: step)
      }
      return trace
    }
    for kind in TrainingBitsTests.Kind.allCases {
      let expected = try trace(turns.trainingCase.trainer(options: kind.options(.none)))
      #expect(expected.sums.allSatisfy { $0.isFinite })
      for recompute in Recompute.allCases {
        let trainer = try turns.trainingCase.trainer(threads: 3, options: kind.options(recompute))
        #expect(try trace(trainer) == expected, "\(recompute)")
      }
      let split = try turns.trainingCase.trainer(
        options: kind.options(), visionLayers: [0..<1, 1..<2], languageLayers: [0..<1, 1..<2])
      #expect(try trace(split) == expected, "split")
    }
  }

  @Test("Turns go on from the beginning's end, and count as a prompt as long as the longest")
  func positions() {
    #expect(
      AttentionSequence(5..<20, turns: [3, 2, 4]).steps(sequence: 8) == [
        SequenceRows(sequence: 8, position: 0, rows: 5..<14, promptLength: 10),
        SequenceRows(sequence: 8, position: 6, rows: 14..<16, promptLength: 10),
        SequenceRows(sequence: 8, position: 6, rows: 16..<20, promptLength: 10),
      ])
    #expect(
      AttentionSequence(5..<20).steps(sequence: 8) == [
        SequenceRows(sequence: 8, position: 0, rows: 5..<20, promptLength: 15)
      ])
  }
}
