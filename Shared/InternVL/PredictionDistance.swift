import Tensors

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// How far the predictions of one model are from another's, position by position.
public struct PredictionDistance: Sendable {
  /// KL(p ‖ q) of every position in nats, p being the reference's distribution.
  public private(set) var divergences: [Double] = []
  /// Positions at which both hold the same token for the most probable.
  public private(set) var agreements = 0
  /// Sums of −log p and −log q of the tokens that came, over ``scored`` positions.
  private var losses = (reference: 0.0, other: 0.0)
  public private(set) var scored = 0

  public init() {}

  public var count: Int { divergences.count }

  /// - Parameters:
  ///   - reference, other: logits [V], float32.
  ///   - target: the token that came; nil where none did.
  public mutating func add(reference: Tensor, other: Tensor, target: Int32?) {
    precondition(reference.count == other.count && reference.count > 0)
    reference.withElements(of: Float.self) { p in
      other.withElements(of: Float.self) { q in
        let (bestP, bestQ) = (PredictionDistance.greatest(p), PredictionDistance.greatest(q))
        let (maxP, maxQ) = (Double(p[bestP]), Double(q[bestQ]))
        var (sumP, sumQ, cross) = (0.0, 0.0, 0.0)
        for index in p.indices {
          let (x, y) = (Double(p[index]) - maxP, Double(q[index]) - maxQ)
          let weight = exp(x)
          sumP += weight
          sumQ += exp(y)
          cross += weight * (x - y)
        }
        // Σ p (log p − log q); rounding may take it below zero.
        divergences.append(max(cross / sumP - log(sumP) + log(sumQ), 0))
        agreements += bestP == bestQ ? 1 : 0
        guard let target else { return }
        losses.reference += log(sumP) - (Double(p[Int(target)]) - maxP)
        losses.other += log(sumQ) - (Double(q[Int(target)]) - maxQ)
        scored += 1
      }
    }
  }

  /// Mean divergence; 0 of no positions.
  public var mean: Double {
    divergences.isEmpty ? 0 : divergences.reduce(0, +) / Double(divergences.count)
  }

  /// The divergence that a fraction of the positions do not exceed; 0 of no positions.
  public func percentile(_ fraction: Double) -> Double {
    guard !divergences.isEmpty else { return 0 }
    let place = Int((Double(divergences.count) * fraction).rounded(.up)) - 1
    return divergences.sorted()[min(max(place, 0), divergences.count - 1)]
  }

  /// Fraction of positions with the same most probable token; 1 of no positions.
  public var agreement: Double {
    divergences.isEmpty ? 1 : Double(agreements) / Double(divergences.count)
  }

  /// Mean cross entropies in nats of the tokens that came.
  public var meanLosses: (reference: Double, other: Double) {
    let count = Double(max(scored, 1))
    return (losses.reference / count, losses.other / count)
  }

  /// The first of the greatest.
  private static func greatest(_ values: UnsafeMutableBufferPointer<Float>) -> Int {
    var best = 0
    for index in values.indices where values[index] > values[best] { best = index }
    return best
  }
}
