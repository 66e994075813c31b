#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Logits under a temperature, as weights relative to the best one: no temperature overflows.
struct TemperedLogits {
  let ranked: RankedLogits
  let largest: Float
  let temperature: Float

  /// exp((logit − largest) / temperature), from 0 to 1.
  private func weight(_ logit: Float) -> Double {
    exp((Double(logit) - Double(largest)) / Double(temperature))
  }

  /// The fewest best tokens within a cut whose probabilities, among those within it, reach `mass`
  /// (arXiv:1904.09751); the best one always.
  ///
  /// Ranks a few tokens first, and more only while they do not reach it.
  func nucleus(_ mass: Double, within cut: RankedLogits.Cut) -> RankedLogits.Cut {
    let values = ranked.values
    var total = 0.0
    var kept = 0
    for index in values.indices where cut.keeps(values[index], index) {
      total += weight(values[index])
      kept += 1
    }
    var count = min(256, kept)
    while true {
      var sum = 0.0
      for index in ranked.best(count) {
        sum += weight(values[index])
        if sum >= mass * total { return RankedLogits.Cut(value: values[index], index: index) }
      }
      // Rounding may leave the sum of all of them just short of the total.
      if count == kept { return cut }
      count = min(count * 8, kept)
    }
  }

  /// The token that `point`, from [0, 1), falls on when those within the cut, and at least `minimum`
  /// as probable as the best, lie side by side by index. nil if rounding leaves it beyond the last.
  func draw(_ point: Double, within cut: RankedLogits.Cut, minimum: Double) -> Int? {
    let values = ranked.values
    var tokens: [Int] = []
    var sums: [Double] = []
    var sum = 0.0
    for index in values.indices where cut.keeps(values[index], index) {
      let weight = weight(values[index])
      guard weight > 0, weight >= minimum else { continue }
      sum += weight
      tokens.append(index)
      sums.append(sum)
    }
    let target = point * sum
    var low = 0
    var high = sums.count
    while low < high {
      let middle = (low + high) / 2
      if sums[middle] > target { high = middle } else { low = middle + 1 }
    }
    return low < tokens.count ? tokens[low] : nil
  }
}
