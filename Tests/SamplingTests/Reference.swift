import Foundation

@testable import Sampling

/// The warpers of Hugging Face's `generate`, written down plainly: sorted, in Double.
enum Reference {
  static func probabilities(
    _ logits: [Float], _ parameters: SamplingParameters, _ generated: [UInt32]
  ) -> [Double] {
    var scores = logits.map(Double.init)
    for token in Set(generated) where Int(token) < scores.count {
      let score = scores[Int(token)]
      let penalty = Double(parameters.repetitionPenalty)
      scores[Int(token)] = score < 0 ? score * penalty : score / penalty
    }
    scores = scores.map { $0 / Double(parameters.temperature) }
    if parameters.topK > 0 {
      let least = scores.sorted(by: >)[min(parameters.topK, scores.count) - 1]
      scores = scores.map { $0 < least ? -.infinity : $0 }
    }
    if parameters.topP < 1 {
      let probabilities = softmax(scores)
      let order = scores.indices.sorted { (scores[$0], $1) > (scores[$1], $0) }
      var before = 0.0
      for (rank, token) in order.enumerated() {
        if rank > 0 && before >= Double(parameters.topP) { scores[token] = -.infinity }
        before += probabilities[token]
      }
    }
    if parameters.minP > 0 {
      let probabilities = softmax(scores)
      let least = (probabilities.max() ?? 0) * Double(parameters.minP)
      for token in scores.indices where probabilities[token] < least {
        scores[token] = -.infinity
      }
    }
    return softmax(scores)
  }

  static func log(_ value: Double) -> Double { Foundation.log(value) }

  private static func softmax(_ scores: [Double]) -> [Double] {
    let largest = scores.max() ?? 0
    let weights = scores.map { exp($0 - largest) }
    let sum = weights.reduce(0, +)
    return weights.map { $0 / sum }
  }
}
