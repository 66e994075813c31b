/// Why no token can be sampled.
public enum SamplingError: Error, Equatable, Sendable {
  /// A parameter outside its range.
  case invalidParameter(name: String, value: String, allowed: String)
  case emptyLogits
  /// A logit that is NaN or positive infinity.
  case invalidLogit(token: Int, value: String)
  /// Every logit is negative infinity.
  case nothingPossible
}

extension SamplingError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .invalidParameter(let name, let value, let allowed):
      return "\(name) is \(value); it must be \(allowed)."
    case .emptyLogits:
      return "There are no logits to sample from; the vocabulary is empty."
    case .invalidLogit(let token, let value):
      return "The logit of token \(token) is \(value). "
        + "The weights or the activations before it overflowed; check the checkpoint."
    case .nothingPossible:
      return "All logits are -inf, so no token can be chosen; check the model's last stage."
    }
  }
}
