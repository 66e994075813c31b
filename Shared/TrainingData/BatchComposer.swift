import Training

/// Makes micro-batches of a step's samples.
public struct BatchComposer: Sendable, Equatable {
  public enum Composition: Sendable, Equatable {
    /// So many samples each, in their order; the last may have fewer.
    case samples(Int)
    /// The same, but long and short ones dealt so that the micro-batches have sums of tokens that
    /// are nearly even: sorted by length, longest first, each to the micro-batch with the fewest
    /// tokens that has room (`get_length_grouped_indices` of internvl_chat, where a mega-batch is
    /// the global batch).
    case groupedByLength(Int)
    /// As many samples as fit into so many tokens: each into the first micro-batch with room.
    case packed(maxTokens: Int)
  }

  public var composition: Composition

  public init(_ composition: Composition) {
    switch composition {
    case .samples(let size), .groupedByLength(let size), .packed(maxTokens: let size):
      precondition(size > 0, "micro-batches of \(size)")
    }
    self.composition = composition
  }

  /// As a run's settings want it.
  ///
  /// - Parameter maxTokens: of a sample, and so of a pack.
  public init(_ configuration: TrainingConfiguration, maxTokens: Int) {
    if configuration.pack {
      self.init(.packed(maxTokens: maxTokens))
    } else if configuration.groupByLength {
      self.init(.groupedByLength(configuration.microBatchSize))
    } else {
      self.init(.samples(configuration.microBatchSize))
    }
  }

  /// - Parameters:
  ///   - samples: of one step, in the order of the epoch.
  ///   - length: tokens of a sample.
  /// - Returns: the samples of each micro-batch; never an empty one.
  public func compose<Samples: Sequence<Int>>(
    _ samples: Samples, length: (Int) -> Int
  ) -> [[Int]] {
    let samples = Array(samples)
    switch composition {
    case .samples(let size): return BatchComposer.chunks(samples, size)
    case .groupedByLength(let size):
      let lengths = samples.map(length)
      let sorted = samples.indices.sorted { (-lengths[$0], $0) < (-lengths[$1], $1) }
      let chunks = (samples.count + size - 1) / size
      if !samples.count.isMultiple(of: max(chunks, 1)) {
        return (0..<chunks).map { chunk in
          stride(from: chunk, to: sorted.count, by: chunks).map { samples[sorted[$0]] }
        }
      }
      let room = chunks > 0 ? samples.count / chunks : 0
      var dealt = [[Int]](repeating: [], count: chunks)
      var sums = [Int](repeating: 0, count: chunks)
      for index in sorted {
        var best: Int?
        for chunk in dealt.indices where dealt[chunk].count < room {
          if best.map({ sums[chunk] < sums[$0] }) ?? true { best = chunk }
        }
        guard let best else { break }
        dealt[best].append(samples[index])
        sums[best] += lengths[index]
      }
      return dealt
    case .packed(let maxTokens):
      var packs: [[Int]] = []
      var sums: [Int] = []
      for sample in samples {
        let tokens = length(sample)
        if let pack = sums.firstIndex(where: { $0 + tokens <= maxTokens }) {
          packs[pack].append(sample)
          sums[pack] += tokens
        } else {
          packs.append([sample])
          sums.append(tokens)
        }
      }
      return packs
    }
  }

  private static func chunks(_ samples: [Int], _ size: Int) -> [[Int]] {
    stride(from: 0, to: samples.count, by: size).map {
      Array(samples[$0..<min($0 + size, samples.count)])
    }
  }
}
