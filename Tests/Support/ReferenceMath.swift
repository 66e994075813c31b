#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Operations of the model in plain Double, as the formulas read: what kernels are held to.
/// Arrays are row-major.
public enum ReferenceMath {
  /// [T, N] = x [T, K] · weight [N, K]ᵀ + bias [N].
  public static func linear(
    _ x: [Double], weight: [Double], bias: [Double]?, rows: Int, depth: Int, outputs: Int
  ) -> [Double] {
    var y: [Double] = []
    for row in 0..<rows {
      for output in 0..<outputs {
        var sum = bias?[output] ?? 0
        for k in 0..<depth { sum += x[row * depth + k] * weight[output * depth + k] }
        y.append(sum)
      }
    }
    return y
  }

  /// x / √(mean(x²) + epsilon) ⊙ weight of each row of x [T, D].
  public static func rmsNorm(_ x: [Double], weight: [Double], epsilon: Double) -> [Double] {
    eachRow(x, width: weight.count) { row in
      let mean = row.reduce(0) { $0 + $1 * $1 } / Double(row.count)
      return zip(row, weight).map { $0 / (mean + epsilon).squareRoot() * $1 }
    }
  }

  /// (x − mean) / √(variance + epsilon) ⊙ weight + bias of each row of x [T, D].
  public static func layerNorm(
    _ x: [Double], weight: [Double], bias: [Double], epsilon: Double
  ) -> [Double] {
    eachRow(x, width: weight.count) { row in
      let mean = row.reduce(0, +) / Double(row.count)
      let variance = row.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(row.count)
      return row.indices.map {
        (row[$0] - mean) / (variance + epsilon).squareRoot() * weight[$0] + bias[$0]
      }
    }
  }

  /// x · Φ(x).
  public static func gelu(_ x: Double) -> Double { x * erfc(-x / 2.0.squareRoot()) / 2 }

  /// x / (1 + e^−x).
  public static func silu(_ x: Double) -> Double { x / (1 + exp(-x)) }

  /// The rotate_half convention: x [T, heads · H], angles by row [T, H / 2].
  public static func rotate(
    _ x: [Double], heads: Int, size: Int, cosines: [[Double]], sines: [[Double]]
  ) -> [Double] {
    var y = x
    let half = size / 2
    for row in cosines.indices {
      for head in 0..<heads {
        let start = (row * heads + head) * size
        for i in 0..<half {
          let (a, b) = (x[start + i], x[start + half + i])
          y[start + i] = a * cosines[row][i] - b * sines[row][i]
          y[start + half + i] = b * cosines[row][i] + a * sines[row][i]
        }
      }
    }
    return y
  }

  /// Softmax of one row.
  public static func softmax(_ x: [Double]) -> [Double] {
    let greatest = x.max() ?? 0
    let powers = x.map { exp($0 - greatest) }
    let sum = powers.reduce(0, +)
    return powers.map { $0 / sum }
  }

  /// Attention of one query [H] over keys and values [positions, H].
  public static func attention(
    _ query: ArraySlice<Double>, keys: [ArraySlice<Double>], values: [ArraySlice<Double>]
  ) -> [Double] {
    let scale = 1 / Double(query.count).squareRoot()
    let scores = keys.map { key in zip(query, key).reduce(0) { $0 + $1.0 * $1.1 } * scale }
    let weights = softmax(scores)
    var y = [Double](repeating: 0, count: query.count)
    for (weight, value) in zip(weights, values) {
      for (i, element) in value.enumerated() { y[i] += weight * element }
    }
    return y
  }

  /// Attention of all heads: q [T, Q · H], k and v [T, KV · H]; a row sees the rows of its own
  /// group, up to itself if `causal`. Rows of no group are zero.
  public static func attention(
    q: [Double], k: [Double], v: [Double], heads: Int, keyValueHeads: Int, size: Int,
    groups: [Range<Int>], causal: Bool
  ) -> [Double] {
    var seen: [Int: [Int]] = [:]
    for group in groups {
      for row in group {
        seen[row] = Array(group.lowerBound..<(causal ? row + 1 : group.upperBound))
      }
    }
    return attention(
      q: q, k: k, v: v, heads: heads, keyValueHeads: keyValueHeads, size: size, seen: seen)
  }

  /// The same, of rows that each see those named, in any order. Rows that see none are zero.
  public static func attention(
    q: [Double], k: [Double], v: [Double], heads: Int, keyValueHeads: Int, size: Int,
    seen: [Int: [Int]]
  ) -> [Double] {
    var y = [Double](repeating: 0, count: q.count)
    let (width, narrow) = (heads * size, keyValueHeads * size)
    for (row, seen) in seen {
      for head in 0..<heads {
        let shared = head / (heads / keyValueHeads) * size
        func slices(_ all: [Double]) -> [ArraySlice<Double>] {
          seen.map { all[$0 * narrow + shared..<$0 * narrow + shared + size] }
        }
        let start = row * width + head * size
        y.replaceSubrange(
          start..<start + size,
          with: attention(q[start..<start + size], keys: slices(k), values: slices(v)))
      }
    }
    return y
  }

  /// Σ −log softmax(hidden · weightᵀ)[label] over the rows with a label of at least 0.
  public static func crossEntropy(
    hidden: [Double], weight: [Double], labels: [Int32], vocabulary: Int
  ) -> Double {
    guard !labels.isEmpty, vocabulary > 0 else { return 0 }
    let logits = linear(
      hidden, weight: weight, bias: nil, rows: labels.count, depth: hidden.count / labels.count,
      outputs: vocabulary)
    return labels.enumerated().reduce(0) { sum, entry in
      guard entry.element >= 0 else { return sum }
      let row = logits[entry.offset * vocabulary..<(entry.offset + 1) * vocabulary]
      let greatest = row.max() ?? 0
      let total = row.reduce(0) { $0 + exp($1 - greatest) }
      return sum + log(total) + greatest - row[row.startIndex + Int(entry.element)]
    }
  }

  private static func eachRow(
    _ x: [Double], width: Int, _ body: ([Double]) -> [Double]
  ) -> [Double] {
    guard width > 0 else { return [] }
    return stride(from: 0, to: x.count, by: width).flatMap { body(Array(x[$0..<$0 + width])) }
  }
}
